-- The label may be wrong: the model is sure of another class, and what it sees for that class is as focused and faithful as usual.
-- The confidence part is confident learning (Northcutt et al. 2021): the score of the predicted class against the mean score that
-- this class has where it is the label. Rows that explain the label too (`--target both`) say more: a label that nothing in the
-- image speaks for has a low score, a diffuse map that carries little of it, and its evidence elsewhere.
-- needs: label
-- uses: gini, insertion_auc, drop_pct, label_overlap
-- param confidence = 0.0   Least score of the prediction.
WITH predicted AS (
    SELECT * FROM atlas WHERE status = 'ok' AND target = prediction AND label IS NOT NULL
), labelled AS (
    SELECT id, method, score AS label_score, gini AS label_gini, drop_pct AS label_drop, insertion_auc AS label_insertion
    FROM atlas WHERE status = 'ok' AND target = label
), both_sides AS (
    -- without a row for the label its score is at most what the prediction leaves
    SELECT predicted.*, label_gini, label_drop, label_insertion, label_score IS NOT NULL AS label_explained,
        coalesce(label_score, least(score, 1 - score)) AS label_score
    FROM predicted LEFT JOIN labelled USING (id, method)
), usual AS (
    SELECT method, label AS prediction, avg(label_score) AS usual_score,
        median(gini) FILTER (label = prediction) AS usual_gini,
        median(100 - drop_pct) FILTER (label = prediction) AS usual_kept,
        median(insertion_auc) FILTER (label = prediction) AS usual_insertion
    FROM both_sides GROUP BY method, label
), judged AS (
    SELECT *,
        greatest(0, score - label_score) AS margin,
        least(1, score / coalesce(usual_score, score)) AS sureness,
        gini / nullif(usual_gini, 0) AS focus,
        (100 - drop_pct) / nullif(usual_kept, 0) AS kept,
        insertion_auc / nullif(usual_insertion, 0) AS faith,
        label_gini / nullif(gini, 0) AS label_focus,
        label_insertion / nullif(insertion_auc, 0) AS label_faith
    FROM both_sides LEFT JOIN usual USING (method, prediction)
    WHERE label <> prediction AND score >= $confidence
), weighed AS (
    -- a part that was not measured neither speaks for the label nor against it
    SELECT *,
        (least(1, coalesce(focus, 1)) + least(1, coalesce(kept, 1)) + least(1, coalesce(faith, 1))) / 3 AS prediction_support,
        (least(1, coalesce(label_focus, 0.5)) + least(1, coalesce(label_faith, 0.5)) + coalesce(label_overlap, 0.5)) / 3 AS label_support
    FROM judged
)
SELECT id, target, method, label_name AS label, prediction_name AS prediction, score, label_score, usual_score,
    gini, label_gini, insertion_auc, label_insertion, drop_pct, label_drop, label_overlap, prediction_support, label_support,
    format('labelled {}, but the model says {} with {:.2f} (', label_name, prediction_name, score)
        || CASE WHEN label_explained THEN format('{} has {:.2f}', label_name, label_score)
                ELSE format('{} has at most {:.2f}', label_name, label_score) END
        || coalesce(format('; {} usually has {:.2f} where it is the label', prediction_name, usual_score), '') || ')'
        || coalesce(format('; its evidence for {} is {:.0f} % as focused as usual', prediction_name, 100 * focus), '')
        || coalesce(format(' and carries {:.0f} % of the usual score', 100 * faith), '')
        || coalesce(format('; for {} the map is {:.0f} % as focused', label_name, 100 * label_focus), '')
        || coalesce(format(', both overlap by {:.0f} %', 100 * label_overlap), '') AS reason,
    margin * sureness * (0.5 + 0.5 * prediction_support) * (1 - 0.5 * label_support) AS priority
FROM weighed
