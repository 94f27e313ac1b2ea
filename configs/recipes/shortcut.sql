-- Shortcuts: confident, correct predictions with the attribution off the object or in the border of the image.
-- Counted by class, because a shortcut is a habit: one image that looks away is chance, nine of ten are not.
-- EBPG depends on the size of the object; where `pointing_hit` is there, a map whose peak lies on the object or near it is not beside it.
-- needs: ebpg or border_share
-- uses: pointing_hit
-- param confidence = 0.5 in [0, 1]  Least confidence of the prediction.
-- param inside = 0.5 in [0, 10]  Attribution on the object below this share of the median over correct predictions counts as off-object.
-- param border = 0.6 in [0, 1]  Attribution in the outer tenth of the image at or above this share counts as border-bound (an even map has 0.36).
WITH seen AS (
    SELECT * FROM atlas
    WHERE status = 'ok' AND target = prediction AND prediction = label AND score >= $confidence
), usual AS (
    SELECT method, median(ebpg) AS usual_ebpg FROM seen GROUP BY method
), judged AS (
    SELECT *,
        coalesce(ebpg < $inside * usual_ebpg, false) AND coalesce(pointing_hit < 0.5, true) AS beside,
        coalesce(border_share >= $border, false) AS at_border,
        greatest(coalesce(1 - ebpg / nullif(usual_ebpg, 0), 0), coalesce(border_share, 0)) AS strength
    FROM seen JOIN usual USING (method)
), habit AS (
    SELECT method, target, count(*) AS right_answers, count(*) FILTER (beside OR at_border) AS looking_away
    FROM judged GROUP BY method, target
)
SELECT id, target, method, label_name AS label, prediction_name AS prediction, score,
    ebpg, usual_ebpg, pointing_hit, border_share, looking_away, right_answers,
    format('correct with confidence {:.2f}, but ', score)
        || concat_ws(' and ',
            CASE WHEN beside THEN format('only {:.0f} % of the attribution lies on the object, where correct predictions usually have {:.0f} %',
                                         100 * ebpg, 100 * usual_ebpg) END,
            CASE WHEN at_border THEN format('{:.0f} % of the attribution lies in the border of the image', 100 * border_share) END)
        || format('; so do {:d} of {:d} correct predictions for {}', looking_away, right_answers, label_name) AS reason,
    -- the added 5 keeps a class of one image from coming first
    0.7 * looking_away / (right_answers + 5) + 0.3 * strength AS priority
FROM judged JOIN habit USING (method, target)
WHERE beside OR at_border
