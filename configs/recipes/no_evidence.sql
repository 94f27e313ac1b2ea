-- Unfaithful explanations: there is no map, or the marked pixels do not carry the prediction.
-- uses: drop_pct, insertion_auc
-- param drop = 90 in [-100, 100]  Loss of confidence in percent, from which on the strongest 15 % of the map count as not carrying the prediction.
-- param insertion = 0.5 in [0, 1]  Area under the insertion curve below this share of the confidence counts as that; where both are known, both must.
-- param confidence = 0.5 in [0, 1]  Least confidence: a model that is not sure has no evidence to show.
WITH judged AS (
    SELECT *,
        status IN ('no_evidence', 'constant_map') AS without_map,
        coalesce(drop_pct >= $drop, false) AS dropped,
        coalesce(insertion_auc < $insertion * confidence, false) AS late
    FROM atlas WHERE status IN ('ok', 'no_evidence', 'constant_map') AND coalesce(target = prediction, true)
)
SELECT id, target, method, label_name AS label, prediction_name AS prediction, confidence, status, drop_pct, insertion_auc,
    CASE WHEN without_map THEN format('There is no map ({}): {}.', status, rtrim(coalesce(error, 'the method found no evidence'), '.'))
         ELSE format('The model sees {} with confidence {:.2f}, and the map does not show why. ', coalesce(target_name, 'the class'), confidence)
            || CASE WHEN dropped AND late
                    THEN format('Its strongest 15 % alone lose {:.0f} % of the confidence, and revealing the image by it brings the confidence back late (insertion area {:.2f}).',
                                drop_pct, insertion_auc)
                    WHEN dropped THEN format('Its strongest 15 % alone lose {:.0f} % of the confidence.', drop_pct)
                    ELSE format('Revealing the image by it brings the confidence back late (insertion area {:.2f}).', insertion_auc) END
    END AS reason,
    CASE WHEN without_map THEN 1
         ELSE 0.9 * confidence * greatest(CASE WHEN dropped THEN drop_pct / 100 ELSE 0 END,
                                     CASE WHEN late THEN 1 - insertion_auc / nullif(confidence, 0) ELSE 0 END) END AS priority
FROM judged
-- a map that fails one of two tests that were made may only be narrow
WHERE without_map OR (confidence >= $confidence AND (dropped OR late) AND coalesce(drop_pct >= $drop, true) AND coalesce(insertion_auc < $insertion * confidence, true))
