-- The label may be wrong: the model gives it little, and what it sees instead is as focused and faithful as it usually is.
-- Confidence part as in confident learning (Northcutt et al. 2021): the score of the label, and of the prediction against the mean
-- score that this class has where it is the label. Rows that explain the label too (`--target both`) say more: how far its own
-- evidence brings it (insertion), how focused that is, and how far the two maps overlap. How much that adds to
-- confidence alone is measured in docs/demo.md.
-- needs: label
-- uses: gini, insertion_auc, drop_pct, label_overlap
-- param doubt = 0.3 in [0, 1]  Least 1 - confidence of the label.
WITH predicted AS (
    SELECT * FROM atlas WHERE status = 'ok' AND target = prediction AND label IS NOT NULL
), labelled AS (
    SELECT id, method, score AS label_score, gini AS label_gini, insertion_auc AS label_insertion
    FROM atlas WHERE status = 'ok' AND target = label
), both_sides AS (
    -- without a row for the label its score is at most what the prediction leaves
    SELECT predicted.*, label_gini, label_insertion, label_score IS NOT NULL AS label_explained,
        coalesce(label_score, least(score, 1 - score)) AS label_score
    FROM predicted LEFT JOIN labelled USING (id, method)
), usual AS (
    SELECT method, label AS prediction, avg(label_score) AS usual_score,
        median(gini) FILTER (label = prediction) AS usual_gini,
        median(insertion_auc) FILTER (label = prediction) AS usual_insertion
    FROM both_sides GROUP BY method, label
), judged AS (
    SELECT *,
        gini / nullif(usual_gini, 0) AS focus,
        (100 - drop_pct) / 100 AS kept,
        insertion_auc / nullif(usual_insertion, 0) AS faith
    FROM both_sides LEFT JOIN usual USING (method, prediction)
    WHERE 1 - label_score >= $doubt
)
SELECT id, target, method, label_name AS label, prediction_name AS prediction, score, label_score, usual_score,
    gini, label_gini, insertion_auc, label_insertion, drop_pct, label_overlap, focus, kept, faith,
    CASE WHEN label = prediction
        THEN format('labelled {} and seen as such, but only with {:.2f}', label_name, score)
        ELSE format('labelled {}, but the model says {} with {:.2f} (', label_name, prediction_name, score)
            || CASE WHEN label_explained THEN format('{} has {:.2f}', label_name, label_score)
                    ELSE format('{} has at most {:.2f}', label_name, label_score) END || ')' END
        || coalesce(format('; {} usually has {:.2f} where it is the label', prediction_name, usual_score), '')
        || coalesce(format('; its map is {:.0f} % as concentrated as usual', 100 * focus), '')
        || coalesce(format(' and brings {:.0f} % of the usual confidence', 100 * faith), '')
        || CASE WHEN label <> prediction
            THEN coalesce(format('; the map for {} brings it to {:.2f}', label_name, label_insertion), '')
                || coalesce(format('; the two maps overlap by {:.0f} % (IoU of their strongest regions)', 100 * label_overlap), '')
            ELSE '' END AS reason,
    -- kept: what of the score the strongest 15 % of the map alone keep; what was not measured neither speaks for the label nor against it
    (1 - label_score) * (1 - coalesce(label_insertion, 0))
        * (0.6 + 0.2 * least(1, coalesce(focus, 1)) + 0.2 * least(1, coalesce(kept, 1))) AS priority
FROM judged
