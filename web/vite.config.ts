/** How the client is built: hashed assets, nothing inline, so that a strict Content-Security-Policy holds. */
import { defineConfig } from 'vite';

/** Where `npm run dev` finds the server; set ANTIPHON_URL for another. */
const server = process.env.ANTIPHON_URL ?? 'http://127.0.0.1:7880';

export default defineConfig({
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The player of streams, which is loaded when one is watched.
    chunkSizeWarningLimit: 600,
    target: ['chrome123', 'firefox120', 'safari17.5'],
  },
  server: { proxy: { '/v1': server } },
  preview: { proxy: { '/v1': server } },
});
