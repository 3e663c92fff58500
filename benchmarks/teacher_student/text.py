"""The words of the page; the figures are put in by page.py."""

INTRODUCTION = """# Teacher-student learning beside SSAST

Made by `{command}` on {machine}. Killed and started again, that command goes on where it was.

**What was trained.** The `demo` presets of SSAST, ASiT, ATST-Clip and ATST-Frame, each once, for {minutes} "minutes"
{schedule}. As on [SSAST's own page](ssast_real_data.md), a minute is
{reference_steps} steps of SSAST ({minute_seconds} s of CPU time on this core with today's code), and of another
method as many steps as take it as long: CPU times were measured in turns on the same core before anything was
trained. All hear the same audio: {public_hours} h of recordings without the clips that a column calls test, and
{generated_hours} h of generated sound.

{speeds}
"""

ONE_SCHEDULE = "in one schedule, from the first step's warm-up to the last step's lowest learning rate"
MANY_SCHEDULES = "in budgets of {budgets}: each continues the one before with half the learning rate"

CLIPS = """## Clips

Seven tasks, the frozen last layer, as on [SSAST's own page](ssast_real_data.md): accuracy in percent, differences in
points with 95 % intervals of a paired bootstrap over test clips. Random weights: the same network and input
statistics, three seeds. Intervals do not hold the variance over pretraining seeds. Tokens: the mean over all of them;
class token: what ASiT and ATST-Clip pool by themselves.
"""

EVENTS = """## Events

Scenes of an office (16 test clips of 10 s) and songs of a finch (10 test clips), with the times of their events.
*Frozen*: a ridge regression on each time step of the last layer, whose penalty, thresholds and median filters are
chosen on training clips that were left out. *Fine-tuned*: a detector of [event detection](detection.md), {tune_steps}
steps of all weights. Random weights: three seeds frozen, one fine-tuned. C2F is ATST-Frame that learns from the
fine-tuned ATST-Clip beside the labels. Event F1 wants both ends within 200 ms (office) or 20 ms (finch), segment F1
counts seconds, frame mAP ranks steps of 20 ms. In percent, with 95 % intervals over test clips: few clips, wide
intervals; differences below are paired.
"""

NOTES = """What was tried, and what these figures do not say, in words: [notes](teacher_student_notes.md).
"""
