-- Outliers of a class: the map differs in place or shape from those of the other images explained for the same class.
-- `maps.distance` is the share of mass to be moved to get the mean map of the class, on an 8x8 grid.
-- uses: centroid_x, centroid_y, spread, top_area, entropy
-- param deviations = 5 in [0, 1000]  Robust deviations from the median of the class, from which on an image counts as unlike it.
-- param members = 10 in [2, 1000000]  Fewest images that make a class.
WITH seen AS (
    SELECT * FROM atlas JOIN maps USING (id, target, method) WHERE status = 'ok' AND target = prediction
), usual AS (
    SELECT method, target, count(*) AS members, median(distance) AS distance_m, 1.4826 * mad(distance) AS distance_d,
        median(centroid_x) AS x_m, 1.4826 * mad(centroid_x) AS x_d, median(centroid_y) AS y_m, 1.4826 * mad(centroid_y) AS y_d,
        median(spread) AS spread_m, 1.4826 * mad(spread) AS spread_d, median(top_area) AS area_m, 1.4826 * mad(top_area) AS area_d,
        median(entropy) AS entropy_m, 1.4826 * mad(entropy) AS entropy_d
    FROM seen GROUP BY method, target
), judged AS (
    SELECT *,
        coalesce((distance - distance_m) / nullif(distance_d, 0), 0) AS map_deviations,
        coalesce(abs(centroid_x - x_m) / nullif(x_d, 0), 0) AS x_deviations,
        coalesce(abs(centroid_y - y_m) / nullif(y_d, 0), 0) AS y_deviations,
        coalesce(abs(spread - spread_m) / nullif(spread_d, 0), 0) AS spread_deviations,
        coalesce(abs(top_area - area_m) / nullif(area_d, 0), 0) AS area_deviations,
        coalesce(abs(entropy - entropy_m) / nullif(entropy_d, 0), 0) AS entropy_deviations
    FROM seen JOIN usual USING (method, target) WHERE members >= $members
), worst AS (
    SELECT *, greatest(map_deviations, x_deviations, y_deviations, spread_deviations, area_deviations, entropy_deviations) AS deviations
    FROM judged
)
SELECT id, target, method, label_name AS label, prediction_name AS prediction, confidence, distance, deviations, map_deviations,
    x_deviations, y_deviations, spread_deviations, area_deviations, entropy_deviations, members,
    CASE deviations
        WHEN map_deviations THEN format('The map is unlike the others for {}: {:.0f} % of its mass lies elsewhere than in their mean map, {:.0f} % are usual.',
                                        target_name, 100 * distance, 100 * distance_m)
        WHEN x_deviations THEN format('The map lies elsewhere than the others for {}: its centre at {:.2f} of the width, usually at {:.2f}.', target_name, centroid_x, x_m)
        WHEN y_deviations THEN format('The map lies elsewhere than the others for {}: its centre at {:.2f} of the height, usually at {:.2f}.', target_name, centroid_y, y_m)
        WHEN spread_deviations THEN format('The map is spread unlike the others for {}: over {:.2f} of the diagonal, usually {:.2f}.', target_name, spread, spread_m)
        WHEN area_deviations THEN format('The map marks another area than the others for {}: {:.0f} % of the image, usually {:.0f} %.', target_name, 100 * top_area, 100 * area_m)
        ELSE format('The map has another entropy than the others for {}: {:.2f}, usually {:.2f}.', target_name, entropy, entropy_m) END
        || format(' That is {:.1f} robust deviations from the median of {:d} images.', deviations, members) AS reason,
    1 - $deviations / deviations / 2 AS priority
FROM worst
WHERE deviations >= $deviations
