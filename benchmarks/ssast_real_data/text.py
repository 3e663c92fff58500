"""The words of the page; the figures are put in by page.py."""

INTRODUCTION = """# What pretraining {method} is worth on real recordings

Made by `{command}` on {machine}. Killed and started again, that command goes on where it was.

**What was heard.** {public_hours} h of recordings (all sets in `AURICLE_DATA`, without the clips that a column calls
test; sets divided by folds or speakers are heard whole, **without labels**), and {generated_hours} h from `data/synth`:
half scenes of everything, half nearly clean tones of all pitches and many timbres. No other audio.

**What was trained.** The `demo` preset of {method} ({parameters} million weights, windows of {window} s), once, for
{minutes} minutes of one core. A minute is {steps_per_minute} steps, so {steps} in all: how busy the machine was changes
no figure. Each budget ends a cosine schedule of its own and continues the network of the budget before it, with a new
optimizer and half the learning rate, so every point of the curve is a finished network.{not_run}

**How it was judged.** Clip embeddings of the frozen network: the last layer, over a clip's time steps either the mean
alone (as the network pools) or mean and standard deviation (as the feature statistics have it); heads with settings
fixed in advance. Random weights: the same network, input statistics, layer and pooling, three seeds. Accuracy in
percent over all test clips; differences in points with 95 % intervals of a paired bootstrap over clips, which do not
hold the variance over pretraining seeds. Preset, mix of audio and the second pooling were chosen on these same tasks
with SSAST, so the figures are a little optimistic.
"""

FINE_TUNED = """All weights, the same network from scratch beside it; {folds}, one seed.
These are short fine-tunings ({finetune_steps} steps of 16 crops), from which a network from scratch has
not converged: they say which start is ahead after so little training, not where either would end.
"""

NOTES = """What was tried on the way, in words: [notes](ssast_real_data_notes.md).
"""
