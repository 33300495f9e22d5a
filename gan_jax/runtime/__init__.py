"""What any long computation needs: files, checkpoints, devices, signals.

Nothing here knows a GAN, a configuration or a flag.
"""
