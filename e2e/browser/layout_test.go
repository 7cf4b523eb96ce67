// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/emulation"
)

// The page fits into a phone, and into a window that is enlarged four times: 1280 pixels
// are 320 then.
func TestItFits(t *testing.T) {
	s := shop()
	for i := range 60 {
		s.add(fmt.Sprintf("with-a-namespace-with-a-long-name/gateway-with-a-name-as-long-as-kubernetes-lets-it-be-%d", i), uint16(1000+i), []string{"with-a-namespace-with-a-long-name/service"}, 2)
	}
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.awaitText("B/s")
	for _, width := range []int64{1920, 1280, 1000, 768, 600, 414, 360, 320} {
		w.size(width, 800)
		w.fits(fmt.Sprintf("%d pixels", width))
	}
	w.click("shop/web")
	w.awaitText("The same as tables")
	w.click("The same as tables")
	for _, width := range []int64{320, 414, 768, 1280} {
		w.size(width, 800)
		w.fits(fmt.Sprintf("shop/web is open, %d pixels", width))
	}
	call(w, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 320, Height: 256, DeviceScaleFactor: 4})
	w.fits("a zoom of 400 %")
	w.click("Trace…")
	w.fits("the dialog at a zoom of 400 %")
	w.typeInto("Client", "203.0.113.9:4000") // it can be reached
}

// Targets are as large as a finger needs: 24 CSS pixels, or with as much room around.
func TestTargetsAreLargeEnough(t *testing.T) {
	v := serve(t, shop())
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("10.0.0.1:8080")
	for _, width := range []int64{1280, 360} {
		w.size(width, 800)
		small := eval[[]string](w, `(() => {
			const all = watched.seen('a[href], button, input, select, summary').filter(e => !e.closest('.skip')).map(e => [e, (e.labels?.[0] ?? e).getBoundingClientRect()]);
			const near = (e, r) => all.some(([other, o]) => other !== e && Math.hypot(o.x + o.width / 2 - r.x - r.width / 2, o.y + o.height / 2 - r.y - r.height / 2) < 24);
			return all.filter(([e, r]) => (r.width < 24 || r.height < 24) && near(e, r)).map(([e, r]) => watched.name(e) + ' ' + r.width + '×' + r.height);
		})()`)
		if len(small) > 0 {
			t.Errorf("%d pixels: these targets are small and near others: %q", width, small)
		}
	}
}

// Nothing moves for those who do not want that.
func TestReducedMotion(t *testing.T) {
	v := serve(t, shop())
	w := newTab(t)
	w.media("prefers-reduced-motion: reduce")
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("10.0.0.1:8080")
	w.awaitText("B/s")
	if moving := eval[[]string](w, `document.getAnimations().filter(a => a.effect.getComputedTiming().duration > 1).map(a => a.animationName ?? a.transitionProperty)`); len(moving) > 0 {
		t.Errorf("these move: %q", moving)
	}
}

// Colours that the user's system forces leave the picture visible.
func TestForcedColours(t *testing.T) {
	v := serve(t, shop())
	w := newTab(t)
	w.media("forced-colors: active")
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("10.0.0.1:8080")
	unseen := eval[[]string](w, `(() => {
		const paint = getComputedStyle(document.body).backgroundColor, all = [...document.querySelectorAll('svg.picture text, svg.picture path, svg.picture line, svg.picture rect')];
		return all.filter(e => { const s = getComputedStyle(e); return [s.fill, s.stroke].every(c => c === 'none' || c === paint) }).map(e => e.outerHTML);
	})()`)
	if len(unseen) > 0 {
		t.Errorf("these parts of the picture have the colour of the ground: %q", unseen)
	}
}
