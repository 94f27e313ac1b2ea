import { defineConfig } from "vite";

// One script, one style sheet and one page with fixed names: the server knows no other files.
export default defineConfig({
  base: "./",
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
