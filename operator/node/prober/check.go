// SPDX-License-Identifier: Apache-2.0

package prober

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// largestHeader is how many bytes of an HTTP response are read.
const largestHeader = 16 << 10

// check checks a backend once. It returns an error for people if it is not healthy.
func check(ctx context.Context, t *Target) error {
	ctx, cancel := context.WithTimeout(ctx, t.Check.Timeout)
	defer cancel()
	addr := t.Key.Backend
	if t.Check.Port != 0 {
		addr = netip.AddrPortFrom(addr.Addr(), t.Check.Port)
	}
	var err error
	switch t.Check.Type {
	case "UDP":
		err = checkUDP(ctx, addr, &t.Check)
	case "HTTP":
		err = checkHTTP(ctx, addr, &t.Check)
	default:
		err = checkTCP(ctx, addr)
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s check of %s: %s", t.Check.Type, addr, reason(err, t.Check.Timeout))
}

// reason returns what has failed, without the addresses that the error repeats.
func reason(err error, timeout time.Duration) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("no answer within %v", timeout)
	case errors.As(err, &errno):
		return errno.Error()
	}
	if u, is := errors.AsType[*url.Error](err); is {
		return u.Err.Error()
	}
	return err.Error()
}

func checkTCP(ctx context.Context, addr netip.AddrPort) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return err
	}
	return c.Close()
}

// checkUDP sends the payload, and again if there is no answer: a datagram may be lost.
func checkUDP(ctx context.Context, addr netip.AddrPort, c *lb.ActiveHealth) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	buffer := make([]byte, 64<<10)
	for try := range 2 {
		if _, err := conn.Write(c.Payload); err != nil {
			return err
		}
		until := end
		if try == 0 {
			until = time.Now().Add(c.Timeout / 2)
		}
		if err := conn.SetReadDeadline(until); err != nil {
			return err
		}
		n, err := conn.Read(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && try == 0:
			continue
		case err != nil:
			return err
		case !bytes.HasPrefix(buffer[:n], c.Expect):
			return fmt.Errorf("an answer of %d bytes that does not begin as expected", n)
		}
		return nil
	}
	return os.ErrDeadlineExceeded
}

func checkHTTP(ctx context.Context, addr netip.AddrPort, c *lb.ActiveHealth) error {
	client := http.Client{
		Transport: &http.Transport{
			Proxy: nil, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: largestHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	path := c.Path
	if path == "" {
		path = "/"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr.String()+path, nil)
	if err != nil {
		return err
	}
	req.Host = c.Host
	req.Header.Set("User-Agent", "blixt-health-check")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.CopyN(io.Discard, res.Body, largestHeader); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, s := range c.Statuses {
		if res.StatusCode >= s.First && res.StatusCode <= s.Last {
			return nil
		}
	}
	if len(c.Statuses) == 0 && res.StatusCode >= 200 && res.StatusCode < 400 {
		return nil
	}
	return fmt.Errorf("status %d", res.StatusCode)
}
