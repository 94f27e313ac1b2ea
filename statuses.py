"""What a row's `status` can say. A row whose status is not `ok` has a null map and null metrics, and says why in `error`."""

OK = "ok"
DECODE_ERROR = "decode_error"
"""The bytes are not an image that can be decoded, or the image is larger than the decompression limit."""
READ_ERROR = "read_error"
"""The bytes cannot be read: missing file, no permission, storage error."""
LABEL_ERROR = "label_error"
"""The sample's label or target names no class of the model."""
TRUTH_ERROR = "truth_error"
"""The sample's ground truth cannot be used: a box outside the image, inverted or NaN; a mask of another size or unreadable."""
NO_TARGET = "no_target"
"""The rule that chooses targets chose none for this image: no class is above the threshold."""
NO_MAP = "no_map"
"""Maps of another tool were imported, and none is of this image."""
NO_EVIDENCE = "no_evidence"
"""A block layer kept no feature map (no alpha_k > mu * beta), so there is nothing to aggregate."""
CONSTANT_MAP = "constant_map"
"""A layer's V_l, or the fused S, is the same everywhere: it ranks no pixel above another."""
NON_FINITE = "non_finite"
"""The model's output, a score or the map is NaN or infinite."""
EXPLAIN_ERROR = "explain_error"
"""The model or the method raised on this image."""
OUT_OF_MEMORY = "out_of_memory"
"""The device's memory did not suffice for this image even at the smallest micro-batch."""
QUARANTINED = "quarantined"
"""The image was alive at three consecutive deaths of its worker and was taken out."""

STATUSES = (
    OK, DECODE_ERROR, READ_ERROR, LABEL_ERROR, TRUTH_ERROR, NO_TARGET, NO_MAP, NO_EVIDENCE, CONSTANT_MAP, NON_FINITE,
    EXPLAIN_ERROR, OUT_OF_MEMORY, QUARANTINED,
)  # fmt: skip

RETRYABLE = frozenset({READ_ERROR, DECODE_ERROR, TRUTH_ERROR, EXPLAIN_ERROR, OUT_OF_MEMORY, QUARANTINED})
"""What may come out otherwise another time: the file was repaired, the storage answers, the device has more memory. The others
follow from the listing, the model and the pixels, and would only come out the same."""
