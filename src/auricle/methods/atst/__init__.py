"""ATST-Clip and ATST-Frame: audio teacher-student transformers (Li et al., Interspeech 2022 and TASLP 2024).

Two methods of one family: clip.py and frame.py are what the registry finds. Read in this order: config.py (settings),
model.py (the encoders), chunks.py (audio longer than the table of positions), views.py and objective.py (the pretext
tasks), presets.py and recipes.py (published trainings), official.py (published checkpoints). Official code:
Audio-WestlakeU/audiossl at ec3a14d; docs/atst.md says where it differs from what is done here.
"""
