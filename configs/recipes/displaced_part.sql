-- Displaced parts: an object part lies elsewhere than in the other images explained for the same class (explainer_network).
-- needs: part_x, part_y, part_strength
-- param deviations = 6 in [0, 1000]  Median distances of the class's parts from their median place, from which on a part counts as displaced.
-- param least = 0.15 in [0, 2]  Distance, as a share of the image's side, that is never displaced.
-- param strong = 1 in [0, 1000000]  Strength from which on a filter sees its part: peak over its mean activation.
-- param present = 0.5 in [0, 1]  Share of the class's images in which a filter must see its part.
-- param members = 10 in [2, 1000000]  Fewest images that make a class.
WITH seen AS (
    SELECT id, target, target_name, method, label_name, prediction_name, confidence, unnest(range(len(part_x::FLOAT[]))) AS part,
        unnest(part_x::FLOAT[]) AS x, unnest(part_y::FLOAT[]) AS y, unnest(part_strength::FLOAT[]) AS strength
    FROM atlas WHERE status = 'ok' AND target = prediction AND part_x IS NOT NULL
), classes_seen AS (
    SELECT method, target, count(DISTINCT id) AS members FROM seen GROUP BY method, target
), there AS (
    SELECT * FROM seen WHERE strength >= $strong AND NOT isnan(x)
), usual AS (
    SELECT method, target, part, count(*) AS times, median(x) AS x_m, median(y) AS y_m FROM there GROUP BY method, target, part
), placed AS (
    SELECT *, sqrt((x - x_m) ** 2 + (y - y_m) ** 2) AS distance FROM there JOIN usual USING (method, target, part)
), judged AS (
    SELECT *, median(distance) OVER (PARTITION BY method, target, part) AS usual_distance FROM placed
), worst AS (
    SELECT *, distance / greatest(usual_distance, 0.01) AS times_usual FROM judged JOIN classes_seen USING (method, target)
    WHERE members >= $members AND times >= $present * members AND distance >= $least
        AND distance >= $deviations * greatest(usual_distance, 0.01)
    QUALIFY row_number() OVER (PARTITION BY id, target, method ORDER BY times_usual DESC, part) = 1
)
SELECT id, target, method, label_name AS label, prediction_name AS prediction, confidence, part, x, y, x_m AS usual_x, y_m AS usual_y, distance,
    times_usual, members,
    format('Part {:d} lies at ({:.2f}, {:.2f}) of the image. In {:d} of {:d} images explained for {} it lies about ({:.2f}, {:.2f}): this is {:.0f} times the usual distance.',
           part, x, y, times, members, target_name, x_m, y_m, times_usual) AS reason,
    1 - $deviations / times_usual / 2 AS priority
FROM worst
