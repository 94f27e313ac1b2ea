-- Outliers: images whose features lie far from those of all others with their label, such as another subject or a broken image.
-- uses: border_share, pointing_hit
-- param deviations = 5 in [0, 1000]     Least distance to the 10 nearest neighbours, with that label, in robust deviations above the median of its logarithm.
-- param all = 0 in [0, 1]            1 ranks every image instead of listing the outliers.
WITH explained AS (
    SELECT * FROM atlas WHERE status = 'ok' AND coalesce(target = prediction, true)
)
SELECT explained.id, target, method, label_name AS label, prediction_name AS prediction, confidence, distance, deviations, nearest,
    format('Unlike the other images{}: its features lie {:.1f} robust deviations farther from their neighbours than usual.',
           coalesce(' labelled ' || label_name, ''), deviations)
        || format(' The most similar image is {}', nearest)
        || CASE WHEN pointing_hit < 0.5 THEN '; the model looks beside the object here.'
                WHEN border_share >= 0.6 THEN format('; {:.0f} % of the map here lies in the border of the image.', 100 * border_share)
                ELSE '.' END AS reason,
    1 / (1 + exp(-deviations / 5)) AS priority
FROM explained JOIN outliers USING (id)
WHERE deviations >= $deviations OR $all = 1
