-- Shortcuts: correct predictions that something decides which does not belong to the class.
-- With `--probe`: images that share a cue which, given to images of other classes, makes the model see the class there. Without it: confident,
-- correct predictions with the attribution off the object (against the chance baseline of their class) or in the border of the image,
-- of classes in which that is significantly more frequent than in the other classes.
-- needs: ebpg or border_share or cues
-- uses: pointing_hit, ebpg_chance
-- param confidence = 0.5 in [0, 1]  Least confidence of the prediction.
-- param inside = 0.5 in [0, 10]      Attribution on the object below this share of the median over correct predictions counts as off-object, if it is also below `above`.
-- param above = 2 in [0, 100]      ... times the chance baseline: what a random map has on the object (measured there, else the label's mean).
-- param border = 0.6 in [0, 1]      Attribution in the outer tenth of the image at or above this share counts as border-bound (an even map has 0.36).
-- param errors = 2 in [0, 100]        Standard errors by which a class's share of such predictions must exceed that of the other classes.
WITH seen AS (
    SELECT *, coalesce(ebpg_chance, avg(ebpg_chance) OVER (PARTITION BY method, label)) AS chance_ebpg FROM atlas
    WHERE status = 'ok' AND target = prediction AND prediction = label AND confidence >= $confidence
), usual AS (
    SELECT method, median(ebpg) AS usual_ebpg FROM seen GROUP BY method
), judged AS (
    SELECT *,
        coalesce(ebpg < $inside * usual_ebpg, false) AND coalesce(ebpg < $above * chance_ebpg, true) AND coalesce(pointing_hit < 0.5, true) AS beside,
        coalesce(border_share >= $border, false) AS at_border,
        greatest(coalesce(1 - ebpg / nullif(usual_ebpg, 0), 0), coalesce(border_share, 0)) AS strength
    FROM seen JOIN usual USING (method)
), counted AS (
    SELECT method, target, count(*) AS right_answers, count(*) FILTER (beside OR at_border) AS looking_away
    FROM judged GROUP BY method, target
), habit AS (
    SELECT *, sum(looking_away) OVER all_classes - looking_away AS others_away,
        sum(right_answers) OVER all_classes - right_answers AS others
    FROM counted WINDOW all_classes AS (PARTITION BY method)
), suspected AS (
    -- one pseudo-count on either side keeps a class of one image, and a share of 0, from being certain
    SELECT *, (looking_away + 1) / (right_answers + 2) AS own_share, (others_away + 1) / (others + 2) AS other_share,
        own_share - other_share > $errors * sqrt(other_share * (1 - other_share) / right_answers
            + own_share * (1 - own_share) / (right_answers + 2)) AND others > 0 AS beyond_chance
    FROM habit
), known AS (
    SELECT count(*) > 0 AS probed FROM cues
)
SELECT judged.id, judged.target, judged.method, label_name AS label, prediction_name AS prediction, confidence,
    ebpg, usual_ebpg, chance_ebpg, pointing_hit, border_share, looking_away, right_answers, kind AS cue, transfer, chance, carrying, carries,
    CASE WHEN coalesce(guilty, false)
        THEN format('Correct with confidence {:.2f}, but it shares {} with {:d} other images of {}.', confidence,
                    CASE kind WHEN 'pixels' THEN 'a mark at one place' WHEN 'patch' THEN 'a mark at any place' WHEN 'spectrum' THEN 'a texture'
                        ELSE 'a colour' END, carrying - 1, label_name)
            || format(' Given to other classes'' images, it raises their confidence in {} by {:.2f} (random halves: at most {:.2f}).',
                      label_name, transfer, chance)
        ELSE format('Correct with confidence {:.2f}, but ', confidence)
            || concat_ws(' and ',
                CASE WHEN beside THEN format('only {:.0f} % of the attribution lies on the object, where correct predictions usually have {:.0f} %',
                                             100 * ebpg, 100 * usual_ebpg) END,
                CASE WHEN at_border THEN format('{:.0f} % of the attribution lies in the border of the image', 100 * border_share) END)
            || format('. So do {:d} of {:d} correct predictions for {} with a confidence of at least {:.2f}.', looking_away, right_answers, label_name, $confidence) END AS reason,
    CASE WHEN coalesce(guilty, false) THEN least(1, 0.5 + 0.3 * transfer + 0.2 * carries)
         ELSE 0.5 * looking_away / (right_answers + 5) + 0.3 * least(1, strength) END AS priority
FROM judged JOIN suspected USING (method, target)
    LEFT JOIN cues ON cues.id = judged.id AND cues.cue_class = judged.label
WHERE CASE WHEN (SELECT probed FROM known) THEN coalesce(guilty, false) ELSE (beside OR at_border) AND beyond_chance END
