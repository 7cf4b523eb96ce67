// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"os"

	"github.com/chromedp/cdproto/page"
)

// picture writes what is seen into a file.
func (w *tab) picture(path string) {
	w.Helper()
	png := call(w, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: new(true)}).Data
	w.check(os.WriteFile(path, png, 0o644))
}
