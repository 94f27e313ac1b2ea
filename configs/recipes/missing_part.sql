-- Missing parts: an object part that the other images explained for the same class show is not seen (explainer_network).
-- needs: part_strength
-- param present = 0.9 in [0, 1]  Share of the class's images in which a filter must see its part.
-- param strong = 1 in [0, 1000000]  Strength from which on a filter sees its part: peak over its mean activation.
-- param share = 0.25 in [0, 1]  Share of the class's median strength below which the part counts as missing.
-- param members = 10 in [2, 1000000]  Fewest images that make a class.
WITH seen AS (
    SELECT id, target, target_name, method, label_name, prediction_name, confidence, unnest(range(len(part_strength::FLOAT[]))) AS part,
        unnest(part_strength::FLOAT[]) AS strength
    FROM atlas WHERE status = 'ok' AND target = prediction AND part_strength IS NOT NULL
), usual AS (
    SELECT method, target, part, count(*) AS members, count(*) FILTER (strength >= $strong) AS times, median(strength) AS usual_strength
    FROM seen GROUP BY method, target, part
), weak AS (
    SELECT *, strength / usual_strength AS ratio FROM seen JOIN usual USING (method, target, part)
    WHERE members >= $members AND times >= $present * members AND strength < $share * usual_strength
), counted AS (
    SELECT *, count(*) OVER (PARTITION BY id, target, method) AS parts FROM weak
    QUALIFY row_number() OVER (PARTITION BY id, target, method ORDER BY ratio, part) = 1
)
SELECT id, target, method, label_name AS label, prediction_name AS prediction, confidence, part, strength, usual_strength, parts, members,
    format('Part {:d}, which {:d} of {:d} images explained for {} show, is not seen. Its strength is {:.2f}, usually {:.2f}',
           part, times, members, target_name, strength, usual_strength)
        || CASE WHEN parts > 1 THEN format('; {:d} parts are missing.', parts) ELSE '.' END AS reason,
    1 - ratio / 2 AS priority
FROM counted
