"""Nuclei instance segmentation: HoVer-Net with any encoder."""
