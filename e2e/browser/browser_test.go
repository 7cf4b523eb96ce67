// SPDX-License-Identifier: Apache-2.0

// Package browser_test looks at the page of package operator/page as people do: in
// Chromium, which it drives. It asserts what is shown, what is never run, that all can be
// reached by keyboard and read by a screen reader, and that nothing is asked of others.
package browser_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// rebinding is a name that resolves to this host, as that of a hostile web site may.
const rebinding = "rebinding.example"

var (
	// browser is a context of chromedp, in which all tabs are.
	browser context.Context
	// binary is the blixt under test.
	binary string
)

var pictures = flag.String("pictures", "", "take pictures with some history, and put them into a `directory`")

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, lab.ErrNotRoot
	}
	dir, err := os.MkdirTemp("", "blixt-browser-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if binary, err = build(dir); err != nil {
		return 1, err
	}
	netlog := filepath.Join(dir, "netlog.json")
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options(dir, netlog)...)
	defer cancel()
	browser, cancel = chromedp.NewContext(ctx)
	defer cancel()
	if err := chromedp.Do(browser); err != nil {
		return 1, fmt.Errorf("start chromium: %w", err)
	}
	code = m.Run()
	end, cancelEnd := context.WithTimeout(browser, 30*time.Second)
	defer cancelEnd()
	if err := chromedp.Cancel(end); err != nil {
		return 1, fmt.Errorf("end chromium: %w", err)
	}
	return code, checkNetwork(netlog)
}

// build is lab.Build, for another module than that of blixt.
func build(dir string) (string, error) {
	if path := os.Getenv("BLIXT_BINARY"); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, "blixt")
	if out, err := exec.Command("make", "-C", "../..", "build", "BIN="+path).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build blixt: %w\n%s", err, out)
	}
	return path, nil
}

// options are Chromium's. It reads and writes nothing outside of dir, has no environment of
// ours, and ends with us: its pipe closes.
func options(dir, netlog string) []chromedp.ExecAllocatorOption {
	return append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"),
		chromedp.UserDataDir(filepath.Join(dir, "profile")),
		chromedp.NoInheritEnv, chromedp.Env("HOME="+dir, "TMPDIR="+dir, "PATH="+os.Getenv("PATH"), "LANG=C.UTF-8"),
		chromedp.WindowSize(1280, 900),
		// A machine may have two cores, and be busy.
		chromedp.WSURLReadTimeout(2*time.Minute),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("log-net-log", netlog),
		chromedp.Flag("host-resolver-rules", "MAP "+rebinding+" 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
		// What Chromium asks for by itself.
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
		chromedp.Flag("no-pings", true),
		chromedp.Flag("disable-features", "Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider,CertificateTransparencyComponentUpdater,AutofillServerCommunication,NetworkTimeServiceQuerying"),
		chromedp.Flag("hide-scrollbars", false),
	)
}

// checkNetwork reads Chromium's log of its network and returns an error if a page has asked
// another host for anything, or if Chromium has connected to one. Chromium itself asks for
// updates now and then, whatever its flags, and finds no such name.
func checkNetwork(netlog string) error {
	text, err := os.ReadFile(netlog)
	if err != nil {
		return err
	}
	var head struct {
		Constants struct {
			Types map[string]int `json:"logEventTypes"`
		} `json:"constants"`
	}
	connect, asked := 0, 0
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, ",\n")
		if connect == 0 {
			if err := json.Unmarshal(append(line, '}'), &head); err != nil {
				return fmt.Errorf("%s: %w", netlog, err)
			}
			if connect = head.Constants.Types["TCP_CONNECT_ATTEMPT"]; connect == 0 {
				return fmt.Errorf("%s knows no attempts to connect: has its form changed?", netlog)
			}
			continue
		}
		var e struct {
			Type   int `json:"type"`
			Params struct{ URL, Initiator, Address string }
		}
		if json.Unmarshal(line, &e) != nil {
			continue // the brackets around events
		}
		if addr, err := netip.ParseAddrPort(e.Params.Address); e.Type == connect && err == nil && !addr.Addr().IsLoopback() {
			return fmt.Errorf("chromium has connected to %s: want connections to this host alone", addr)
		}
		u, err := url.Parse(e.Params.URL)
		if err != nil || e.Params.Initiator == "" || e.Params.Initiator == "not an origin" {
			continue
		}
		asked++
		if h := u.Hostname(); h != "127.0.0.1" && h != "localhost" && h != rebinding {
			return fmt.Errorf("%s has asked for %s: want requests to the page's server alone", e.Params.Initiator, u)
		}
	}
	if asked == 0 {
		return fmt.Errorf("%s tells of no request at all: has its form changed?", netlog)
	}
	return nil
}
