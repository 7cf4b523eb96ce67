// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// picture writes what is seen into a file: from the top of an element to the bottom of
// another one, or 1200 pixels if that is less.
func (w *tab) picture(path, from, to string) {
	w.Helper()
	w.act(chromedp.MouseEvent(chromedp.MouseMoved, 1, 1)) // nothing is pointed at
	area := eval[[4]float64](w, `(() => {
		scrollTo(0, 0);
		const a = document.querySelector(%s).getBoundingClientRect(), b = document.querySelector(%s).getBoundingClientRect();
		return [a.x, a.y, a.width, b.bottom - a.y];
	})()`, from, to)
	image := call(w, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Format: page.CaptureScreenshotFormatWebp, Quality: new(int64(80)),
		Clip: &page.Viewport{X: max(0, area[0]), Y: max(0, area[1]), Width: area[2], Height: min(area[3]+16, 1200), Scale: 1},
	}).Data
	w.check(os.MkdirAll(filepath.Dir(path), 0o755))
	w.check(os.WriteFile(path, image, 0o644))
	if len(image) > largestPicture {
		w.Errorf("%s has %d bytes, want at most %d", path, len(image), largestPicture)
	}
}

// artefacts is where pictures of tests are kept.
const artefacts = "../../bin/pictures"

// largestPicture is in bytes: whoever clones the repository gets them all.
const largestPicture = 150_000

// TestPictures takes pictures of a host that serves: for the docs, if a directory is given,
// with some history.
func TestPictures(t *testing.T) {
	dir, history := *pictures, 24
	if dir == "" {
		dir, history = artefacts, 3
	}
	e := newEdge(t, well)
	e.traffic()
	w := newTab(t)
	w.open(e.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("10.77.0.14:8080")
	w.check(e.blixt.Apply(shopConfig(drained)))
	w.awaitText("draining")
	for seen := 0; seen < history; {
		seen = await(w, "another View", `watched.draws.length`, func(n int) bool { return n > seen })
	}
	frame := func(width, height int64, scale float64) {
		call(w, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: scale})
		eval[bool](w, `new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`)
	}
	for _, scheme := range []string{"light", "dark"} {
		w.media("prefers-color-scheme: "+scheme, "prefers-reduced-motion: reduce")
		frame(1280, 1400, 1.5)
		w.picture(filepath.Join(dir, "host-"+scheme+".webp"), "body", "section:has(#gateways)")
		frame(390, 2400, 1.5)
		w.picture(filepath.Join(dir, "phone-"+scheme+".webp"), "body", "section:has(#gateways)")
	}
	w.media("prefers-color-scheme: light", "prefers-reduced-motion: reduce")
	frame(1100, 1400, 2)
	w.picture(filepath.Join(dir, "gateway.webp"), "tr.detail figure", "tr.detail figure")

	if err := e.blixt.Apply(shopConfig(drained, ill)); err != nil {
		t.Fatal(err)
	}
	w.click("shop/web")
	w.awaitText("NOT WELL", "BackendNotFound", "reject_no_backend")
	eval[bool](w, `document.querySelector('#drops summary').click() ?? true`)
	frame(1280, 1400, 1.5)
	w.picture(filepath.Join(dir, "problems.webp"), "body", "section:has(#gateways)")
}
