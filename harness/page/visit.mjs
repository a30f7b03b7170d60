// Visits one page in a Chromium that somebody else started: pictures of it, and Lighthouse.
//
// Owns what is asked of the browser. Reads a job as JSON on stdin and writes the answer to the
// file that the job names; knows no metrics, and starts nothing. `lighthouse` is the folder of the
// npm package; puppeteer-core is the one that it depends on.

import {writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {pathToFileURL} from 'node:url';

const job = JSON.parse(await text(process.stdin));
const from = (...names) => import(pathToFileURL(join(job.lighthouse, ...names)).href);
const require = createRequire(join(job.lighthouse, 'package.json'));
const {default: puppeteer} = await import(pathToFileURL(require.resolve('puppeteer-core')).href);
const browser = await puppeteer.connect({
  browserURL: `http://127.0.0.1:${job.port}`,
  defaultViewport: null,
  protocolTimeout: job.timeout_s * 1000,
});
const answer = {pictures: [], reports: []};
try {
  for (const picture of job.pictures) answer.pictures.push(await shoot(picture));
  if (job.runs > 0) answer.reports = await audit();
} finally {
  await browser.disconnect();
}
writeFileSync(job.out, JSON.stringify(answer));
process.exit(0); // an open socket of the browser's would keep this process alive

/** Take a picture of the whole page as it is when nothing moves any more. */
async function shoot({width, height, mobile, file}) {
  const {userAgents} = await from('core', 'config', 'constants.js');
  const page = await browser.newPage();
  try {
    // A narrow picture is of what Lighthouse's phone sees, and it tells apart no visitors.
    await page.setUserAgent(mobile ? userAgents.mobile : userAgents.desktop);
    await page.setViewport({width, height, isMobile: mobile, hasTouch: mobile});
    await page.emulateMediaFeatures([{name: 'prefers-reduced-motion', value: 'reduce'}]);
    const timeout = job.timeout_s * 1000;
    const response = await page.goto(job.url, {waitUntil: 'networkidle0', timeout});
    await page.evaluate(settle);
    await page.screenshot({path: file, fullPage: true, type: 'png'});
    return {file, status: response ? response.status() : null};
  } finally {
    await page.close();
  }
}

/** In the page: have everything loaded, also what waits to be scrolled to, and end what moves. */
async function settle() {
  const soon = ms => new Promise(resolve => setTimeout(resolve, ms));
  for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
    scrollTo({top: y, behavior: 'instant'});
    await soon(20);
  }
  scrollTo({top: 0, behavior: 'instant'});
  await document.fonts.ready;
  const pictures = [...document.images].map(image => image.decode().catch(() => {}));
  await Promise.race([Promise.all(pictures), soon(10_000)]);
  for (const animation of document.getAnimations()) {
    const {iterations} = animation.effect?.getTiming() ?? {iterations: 1};
    if (iterations === Infinity) animation.cancel();
    else animation.finish();
  }
  await soon(100);
}

/** Run Lighthouse, one time after the other. */
async function audit() {
  const {default: lighthouse} = await from('core', 'index.js');
  const {default: desktop} = await from('core', 'config', 'desktop-config.js');
  const config = job.form_factor === 'desktop' ? desktop : undefined;
  const reports = [];
  for (let run = 0; run < job.runs; run++) {
    const flags = {port: job.port, output: 'json', logLevel: 'error', ...job.flags};
    const done = await lighthouse(job.url, flags, config);
    if (!done) throw new Error('Lighthouse has given no report');
    reports.push(done.lhr);
  }
  return reports;
}

async function text(stream) {
  let all = '';
  for await (const part of stream.setEncoding('utf8')) all += part;
  return all;
}
