-- Outliers: images whose features lie far from those of all others with their label, such as another subject or a broken image.
-- param deviations = 5 in [0, 1000]     Least distance to the 10 nearest neighbours, with that label, in robust deviations above the median of its logarithm.
-- param all = 0 in [0, 1]            1 ranks every image instead of listing the outliers.
WITH explained AS (
    SELECT * FROM atlas WHERE status = 'ok' AND coalesce(target = prediction, true)
)
SELECT explained.id, target, method, label_name AS label, prediction_name AS prediction, confidence, distance, deviations, nearest,
    format('Unlike the other images{}: its features lie {:.1f} robust deviations farther from their neighbours than usual.',
           coalesce(' labelled ' || label_name, ''), deviations)
        || format(' The most similar image is {}.', nearest) AS reason,
    1 / (1 + exp(-deviations / 5)) AS priority
FROM explained JOIN outliers USING (id)
WHERE deviations >= $deviations OR $all = 1
