"""What methods over patches of a log-mel spectrogram share (SSAST, SSAMBA): no method of its own.

config.py (settings of front end, patches and masks), encoder.py (spectrogram to tokens to pooled embeddings, around any
layers), masked.py (the masked patch objective), official.py (checkpoints of SSAST's code and its descendants),
recipes.py (what their published fine-tunings have in common), superb.py (SUPERB's input).
"""
