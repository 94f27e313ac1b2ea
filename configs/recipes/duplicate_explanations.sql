-- Near-duplicate maps: the same image twice, or one mark at the same place of many images.
-- The view `twins` has for every map the one that it looks like most, found by hashing; see docs/curation.md.
-- param distance = 0.02 in [0, 0.03]  Largest difference of two maps that counts as none: the share of mass to be moved on an 8x8 grid, at most 0.03.
WITH near AS (
    SELECT * FROM twins WHERE distance <= $distance AND twin <> id
), labels AS (
    SELECT id, target, method, label_name FROM atlas
)
SELECT a.id, a.target, a.method, a.label_name AS label, labels.label_name AS twin_label, a.prediction_name AS prediction, a.confidence,
    near.twin, near.distance, near.alike,
    format('The map is that of {} but for {:.1f} % of its mass', near.twin, 100 * near.distance)
        || CASE WHEN near.alike > 1 THEN format('; at least {:d} others are as near.', near.alike) ELSE '.' END
        || CASE WHEN a.label_name <> labels.label_name
                THEN format(' Yet this image is labelled {} and that one {}.', a.label_name, labels.label_name) ELSE '' END AS reason,
    0.5 * (1 - near.distance / $distance) + 0.3 * (1 - 1.0 / near.alike)
        + CASE WHEN a.label_name <> labels.label_name THEN 0.2 ELSE 0 END AS priority
FROM near
JOIN atlas a ON a.id = near.id AND a.target = near.target AND a.method = near.method
JOIN labels ON labels.id = near.twin AND labels.target = near.twin_target AND labels.method = near.method
