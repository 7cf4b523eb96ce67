// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"bytes"
	"cmp"
	_ "embed"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"slices"
	"testing"

	cdppage "github.com/chromedp/cdproto/page"
)

//go:embed testdata/contrast.js
var contrastScript string

// seenText is text on the page. Places are in CSS pixels, the colour is from 0 to 255.
type seenText struct {
	Text, Where         string
	X, Y, Width, Height float64
	Colour              [4]float64
	Opacity             float64
	Large               bool
}

// luminance is the relative luminance of WCAG 2.2, of colours from 0 to 255.
func luminance(rgb [3]float64) float64 {
	for i, c := range rgb {
		if c /= 255; c <= 0.04045 {
			rgb[i] = c / 12.92
		} else {
			rgb[i] = math.Pow((c+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*rgb[0] + 0.7152*rgb[1] + 0.0722*rgb[2]
}

// contrast is the contrast ratio of WCAG 2.2.
func contrast(a, b [3]float64) float64 {
	la, lb := luminance(a), luminance(b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

// over returns a colour that lies on another one.
func (s *seenText) over(below [3]float64) (c [3]float64) {
	alpha := s.Colour[3] / 255 * s.Opacity
	for i := range c {
		c[i] = s.Colour[i]*alpha + below[i]*(1-alpha)
	}
	return c
}

// worst returns the least contrast of the text with what is behind it in a picture. The
// edges of its box may have a border.
func (s *seenText) worst(behind *image.RGBA) float64 {
	least := math.Inf(1)
	x0, x1 := int(math.Ceil(s.X+1)), int(s.X+s.Width-1)
	y0, y1 := int(math.Ceil(s.Y+s.Height*0.25)), int(s.Y+s.Height*0.75)
	area := image.Rect(x0, y0, max(x1, x0+1), max(y1, y0+1)).Intersect(behind.Bounds())
	known := map[color.RGBA]bool{} // most pixels have the same colour
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			p := behind.RGBAAt(x, y)
			if known[p] {
				continue
			}
			known[p] = true
			rgb := [3]float64{float64(p.R), float64(p.G), float64(p.B)}
			least = min(least, contrast(s.over(rgb), rgb))
		}
	}
	return least
}

// checkContrast fails the test for text that can be read badly, within an element.
func (w *tab) checkContrast(where string, within ...string) {
	w.Helper()
	eval[bool](w, contrastScript)
	var texts []seenText
	var picture []byte
	for moved := true; moved; { // the picture of a Gateway follows a change of width a frame later
		eval[bool](w, `(scrollTo(0, 0), true)`)
		texts = eval[[]seenText](w, `watched.texts(%s)`, cmp.Or(append(within, "body")...))
		eval[bool](w, `watched.hide(true)`)
		picture = call(w, cdppage.CaptureScreenshot, cdppage.CaptureScreenshotParams{CaptureBeyondViewport: new(true)}).Data
		eval[bool](w, `watched.hide(false)`)
		moved = !slices.EqualFunc(texts, eval[[]seenText](w, `watched.texts(%s)`, cmp.Or(append(within, "body")...)), func(a, b seenText) bool { return a.X == b.X && a.Y == b.Y })
	}
	if len(texts) < 10 {
		w.Fatalf("%s: there are only %d texts", where, len(texts))
	}
	decoded, err := png.Decode(bytes.NewReader(picture))
	w.check(err)
	behind := image.NewRGBA(decoded.Bounds())
	draw.Draw(behind, behind.Rect, decoded, behind.Rect.Min, draw.Src)
	said := map[string]bool{}
	for _, s := range texts {
		want := 4.5
		if s.Large {
			want = 3
		}
		if got := s.worst(behind); got < want && !said[s.Where+s.Text] {
			said[s.Where+s.Text] = true
			w.Errorf("%s: %q (%s) has a contrast of %.2f, want %.1f; its colour is %v", where, s.Text, s.Where, got, want, s.Colour)
		}
	}
}

// The computation agrees with examples that are known.
func TestContrastIsComputedRight(t *testing.T) {
	for _, c := range []struct {
		a, b [3]float64
		want float64
	}{
		{[3]float64{0, 0, 0}, [3]float64{255, 255, 255}, 21},
		{[3]float64{119, 119, 119}, [3]float64{255, 255, 255}, 4.48}, // #777, the grey that just fails
		{[3]float64{255, 255, 255}, [3]float64{255, 255, 255}, 1},
	} {
		if got := contrast(c.a, c.b); math.Abs(got-c.want) > 0.01 {
			t.Errorf("contrast of %v and %v is %.3f, want %.2f", c.a, c.b, got, c.want)
		}
	}
}

// All text can be read: on a light ground and on a dark one, whatever state it is in.
func TestContrast(t *testing.T) {
	for _, scheme := range []string{"light", "dark"} {
		s := stuck{shop(), make(chan struct{})}
		v := serve(t, s)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case s.let <- struct{}{}:
				case <-stop:
					return
				}
			}
		}()
		s.trace = map[string]any{"protocol": "tcp", "client": "203.0.113.9:4000", "server": "198.51.100.1:80", "verdict": "forwarded", "why": "a new flow begins", "counter": "new_flows", "notes": []string{"a note"}}
		s.overview.Status.Findings[1].Verdict = "unknown"
		w := newTab(t)
		w.media("prefers-color-scheme: "+scheme, "prefers-reduced-motion: reduce")
		w.open(v.URL)
		w.awaitText("shop/web")
		w.click("shop/web")
		w.awaitText("10.0.0.1:8080")
		eval[bool](w, `document.querySelectorAll('details').forEach(e => e.open = true) ?? true`)
		w.click("Pause")
		w.awaitText("Paused")
		w.size(1280, 4000) // all in one picture
		w.checkContrast(scheme + ", paused")
		w.size(360, 6000)
		w.checkContrast(scheme + ", a phone")
		w.size(1280, 2000)
		w.click("Trace…")
		w.typeInto("Client", "203.0.113.9:4000")
		w.typeInto("Frontend", "198.51.100.1:80")
		w.key("\r")
		await(w, "an answer", `document.querySelector('#trace-answer').innerText`, func(seen string) bool { return seen != "" })
		w.checkContrast(scheme+", trace", "dialog")
		w.key("\x1b")
		close(stop)
		w.click("Resume")
		w.awaitText("last update")
		w.size(1280, 4000)
		w.checkContrast(scheme + ", stale")
	}
}
