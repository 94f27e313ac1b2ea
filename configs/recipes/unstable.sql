-- Unstable explanations: imperceptible noise on the image changes the map.
-- needs: max_sensitivity
-- param deviations = 4 in [0, 1000]  Robust deviations above the run's median, from which on a map counts as unstable.
-- param least = 0.2 in [0, 1000]  Relative change of the map that is stable whatever the others do.
WITH seen AS (
    SELECT * FROM atlas WHERE status = 'ok' AND max_sensitivity IS NOT NULL
), usual AS (
    SELECT method, median(max_sensitivity) AS usual, 1.4826 * mad(max_sensitivity) AS deviation FROM seen GROUP BY method
), judged AS (
    SELECT *, (max_sensitivity - usual) / nullif(deviation, 0) AS deviations FROM seen JOIN usual USING (method)
)
SELECT id, target, method, label_name AS label, prediction_name AS prediction, confidence, max_sensitivity, usual AS usual_sensitivity,
    deviations,
    format('Imperceptible noise changes the map by {:.0f} % of its size. {:.0f} % are usual, which is {:.1f} robust deviations less.',
           100 * max_sensitivity, 100 * usual, deviations) AS reason,
    1 - $deviations / deviations / 2 AS priority
FROM judged
WHERE max_sensitivity >= $least AND deviations >= $deviations
