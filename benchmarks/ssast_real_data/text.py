"""The words of the page; the figures are put in by page.py."""

INTRODUCTION = """# What pretraining is worth on real recordings

Made by `{command}` on {machine}. Killed and started again, that command goes on where it was.

**What was heard.** {public_hours} h of recordings (all sets in `AURICLE_DATA`, without the clips that a column calls
test; sets divided by folds or speakers are heard whole, **without labels**), and {generated_hours} h from `data/synth`:
half scenes of everything, half nearly clean tones of all pitches and many timbres. No other audio.

**What was trained.** The `demo` preset of SSAST ({parameters} million weights, frame mode, windows of 1.1 s), once, for
{minutes} minutes of one core. A minute is {steps_per_minute} steps, so {steps} in all: how busy the machine was changes
no figure. Each budget ends a cosine schedule of its own and continues the network of the budget before it, with a new
optimizer and half the learning rate, so every point of the curve is a finished network.{not_run}

**How it was judged.** Clip embeddings of the frozen network (last layer, mean over time), heads with settings fixed in
advance. Random weights: the same network, input statistics, layer and pooling, three seeds. Accuracy in percent over
all test clips; differences in points with 95 % intervals of a paired bootstrap over clips, which do not hold the
variance over pretraining seeds. Preset and mix of audio were chosen on these same tasks, so the figures are a little
optimistic.
"""

TRIED = """## What was tried

Single short runs (500 steps) decided the recipe; their figures come from no committed command, so only the outcome is
told, and the curves above show what matters of it.

* **Generated tones against the loss of pitch.** On recordings alone, minutes of training make pitch worse. A third of
  the crops from held notes of all pitches, with timbres made up anew for every note, is the remedy that was chosen.
* **Tokens of four frames over windows of 2.2 s**, at the same cost: not better, and spoken digits suffered.
* **Earlier layers, or all layers side by side**: random networks gain more from them than the pretrained one, since the
  first layer of a random network is its best. The last layer is what the tables show, for both.
* **Continuing at half the learning rate** after each budget: the network of one budget is where the next begins.
"""
