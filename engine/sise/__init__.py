"""SISE: masks from feature maps, scored and fused block by block."""
