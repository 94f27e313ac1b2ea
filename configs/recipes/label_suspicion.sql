-- Suspected wrong labels: the label has next to no confidence, and another class as much as it usually has where it is the label.
-- With features (`--probe`) or `--probs`, confidences are a weighted geometric mean of the model's and of 5-fold linear probes; without them
-- the model's alone, which has learned its training labels by heart. Maps give the reason and do not change the order: as factors
-- they lowered the ranking below plain confidence on the sets of docs/curation.md.
-- needs: label
-- uses: gini, insertion_auc, drop_pct, label_overlap
-- param little = 0.15 in [0, 1]      Most confidence of a label that is listed (model alone; with features the rule of docs/curation.md).
-- param all = 0 in [0, 1]            1 ranks every labelled image instead of listing the suspected ones.
WITH predicted AS (
    SELECT * FROM atlas WHERE status = 'ok' AND target = prediction AND label IS NOT NULL
), labelled AS (
    SELECT id, method, confidence AS label_score, gini AS label_gini, insertion_auc AS label_insertion
    FROM atlas WHERE status = 'ok' AND target = label
), both_sides AS (
    -- without a row for the label its softmax confidence is at most what the prediction leaves; a sigmoid's is not known then
    SELECT predicted.*, label_gini, label_insertion, label_score IS NOT NULL AS label_explained,
        coalesce(label_score, CASE WHEN (SELECT confidence FROM run) = 'sigmoid' THEN NULL ELSE least(confidence, 1 - confidence) END) AS label_score
    FROM predicted LEFT JOIN labelled USING (id, method)
), usual AS (
    SELECT method, label AS prediction, avg(label_score) AS usual_score,
        median(gini) FILTER (label = prediction) AS usual_gini,
        median(insertion_auc) FILTER (label = prediction) AS usual_insertion
    FROM both_sides GROUP BY method, label
), judged AS (
    SELECT both_sides.*, usual_score, usual_gini, usual_insertion, quality.probe_confidence, quality.suggested, quality.estimated_wrong,
        wrong_from, wrong_to,
        coalesce(quality.suspicion, 1 - label_score) AS suspicion,
        coalesce(quality.accused, label <> prediction AND label_score <= $little AND confidence >= 0.8 * coalesce(usual_score, 0.5)) AS accused,
        coalesce(quality.suggested, prediction) AS other,
        gini / nullif(usual_gini, 0) AS focus,
        insertion_auc / nullif(usual_insertion, 0) AS faith
    FROM both_sides LEFT JOIN usual USING (method, prediction) LEFT JOIN label_quality quality USING (id)
), named AS (
    SELECT judged.*, coalesce((SELECT name FROM classes WHERE index = other), 'class ' || other) AS other_name FROM judged
    WHERE label_score IS NOT NULL OR suspicion IS NOT NULL
)
SELECT id, target, method, label_name AS label, prediction_name AS prediction, confidence, label_score, usual_score, probe_confidence,
    other_name AS suggested, gini, label_gini, insertion_auc, label_insertion, drop_pct, label_overlap, focus, faith, accused, estimated_wrong, wrong_from, wrong_to,
    -- a stranger reads two sentences: what is suspected, and what the maps say of it
    CASE WHEN (SELECT confidence FROM run) = 'sigmoid'
        THEN format('The label {} has a confidence of only {:.2f}.', label_name, 1 - suspicion)
        WHEN label = prediction
        THEN format('The model agrees with the label {}, with confidence {:.2f}.', label_name, confidence)
        ELSE format('Labelled {}, but the model sees {} with confidence {:.2f}', label_name, prediction_name, confidence)
            || coalesce(format(' and a linear probe gives {} only {:.2f}.', label_name, probe_confidence), '.') END
        || CASE WHEN label = prediction THEN ''
            WHEN label_overlap IS NOT NULL
            THEN format(' The two maps overlap by {:.0f} % (IoU of their strongest regions).', 100 * label_overlap)
            WHEN focus IS NOT NULL
            THEN format(' The map for {} is {:.0f} % as concentrated as usual.', prediction_name, 100 * focus)
            ELSE '' END AS reason,
    suspicion AS priority
FROM named
WHERE accused OR $all = 1
