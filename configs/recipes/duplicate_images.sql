-- Near-duplicate images: perceptual hash and features agree; also mirror images. Pairs with different labels, or in different splits
-- (a column `split` of the data set), come first.
-- uses: split
-- param bits = 8 in [0, 8]           Most of the 64 bits of the perceptual hashes that may differ, at most 8.
WITH explained AS (
    SELECT * FROM atlas WHERE status = 'ok' AND coalesce(target = prediction, true)
), labels AS (
    SELECT DISTINCT id AS twin, label_name AS twin_label, split AS twin_split FROM atlas
)
SELECT explained.id, target, method, label_name AS label, twin_label, split, twin_split, prediction_name AS prediction, confidence, twin, bits, cosine, mirrored,
    format('Nearly the same image as {}{}.', CASE WHEN mirrored THEN 'the mirror image of ' ELSE '' END, twin)
        || ' ' || CASE
            WHEN label_name <> twin_label AND split <> twin_split
            THEN format('Yet this one is labelled {} and that one {}, and they lie in different splits: {} and {}.', label_name, twin_label, split, twin_split)
            WHEN label_name <> twin_label THEN format('Yet this one is labelled {} and that one {}.', label_name, twin_label)
            WHEN split <> twin_split THEN format('They lie in different splits: {} and {}.', split, twin_split)
            ELSE format('{} of the 64 bits of their perceptual hashes differ.', bits) END AS reason,
    0.5 * (1 - bits / 9) + 0.3 * cosine + CASE WHEN label_name <> twin_label OR split <> twin_split THEN 0.2 ELSE 0 END AS priority
FROM explained JOIN image_duplicates USING (id) JOIN labels USING (twin)
WHERE bits <= $bits
