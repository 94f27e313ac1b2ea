import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

// What the page is built from, as one number in the page: a test compares it with the sources.
function sourceDigest(): Plugin {
  const files = ["index.html", "package-lock.json", ...readdirSync("src").map((name) => `src/${name}`)].sort();
  return {
    name: "source-digest",
    transformIndexHtml: () => {
      const digest = createHash("sha256");
      for (const file of files) digest.update(`${file}\0`).update(readFileSync(file)).update("\0");
      return [{ tag: "meta", attrs: { name: "sources", content: digest.digest("hex") }, injectTo: "head" }];
    },
  };
}

// One script, one style sheet and one page with fixed names: the server knows no other files.
export default defineConfig({
  base: "./",
  plugins: [sourceDigest()],
  build: {
    outDir: "../assets",
    emptyOutDir: true,
    modulePreload: false,
    target: "es2022",
    rollupOptions: {
      output: { entryFileNames: "view.js", assetFileNames: "view.[ext]", chunkFileNames: "view.js" },
    },
  },
});
