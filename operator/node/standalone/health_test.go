// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

const metricsAddress = "127.0.0.1:8082"

// get returns what the load balancer answers at its metrics address.
func get(path string) (code int, text string, err error) {
	r, err := http.Get("http://" + metricsAddress + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r.StatusCode, string(body), err
}

// answers waits until a path has this code, and all these lines or parts of them.
func (i *instance) answers(path string, want int, words ...string) {
	i.Helper()
	eventually(i.TB, func() error {
		code, text, err := get(path)
		if err != nil {
			return err
		}
		for _, word := range words {
			if !strings.Contains(text, word) {
				return fmt.Errorf("%s: no %q in:\n%s", path, word, text)
			}
		}
		if code != want {
			return fmt.Errorf("%s: %d %s", path, code, text)
		}
		return nil
	})
}

func TestMetricsAreServed(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.MetricsAddress = metricsAddress
	i.start()
	i.serves(far4 + ":80")
	i.answers("/readyz", http.StatusOK)
	i.answers("/healthz", http.StatusOK)
	i.answers("/metrics", http.StatusOK, "blixt_ready 1\n", "blixt_state_failing 0\n", "blixt_frontends 1\n", "blixt_backends 1\n", "blixt_state_age_seconds ",
		`blixt_table_size{table="flows"} 4096`, `blixt_packets_total{reason="drop_no_route"} 0`, `blixt_frontend_established_flows{frontend="`+far4+`:80/tcp"`,
		`blixt_problems{kind="File",reason="Invalid"} 0`, `blixt_problems{kind="Object",reason="Mistake"} 0`, `blixt_pass_duration_seconds_count{phase="write"} `, `blixt_build_info{`,
		`blixt_scrape_errors_total{part="maps"} 0`, "go_goroutines ")
	_, text, err := get("/metrics")
	must(t, err)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	i.put("bad.yaml", "a: [\n")
	i.answers("/metrics", http.StatusOK, `blixt_problems{kind="File",reason="Invalid"} 1`, "blixt_ready 1\n")
	i.stop()
	if _, _, err := get("/healthz"); err == nil {
		t.Error("it is still served after the end")
	}
}

// TestReadyTellsWhyNot follows a load balancer from before it is loaded, over the loss of
// its program, to where it serves again.
func TestReadyTellsWhyNot(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.MetricsAddress = metricsAddress
	load, may := i.Load, make(chan error)
	var lost atomic.Pointer[error]
	i.Load = func(interfaces []hostnet.Interface) (*Loaded, error) {
		if err := <-may; err != nil {
			return nil, err
		}
		lost.Store(nil)
		l, err := load(interfaces)
		if err == nil {
			l.Lost = func() error {
				if err := lost.Load(); err != nil {
					return *err
				}
				return nil
			}
		}
		return l, err
	}
	i.start()
	i.answers("/readyz", http.StatusServiceUnavailable, "not loaded yet")
	i.answers("/healthz", http.StatusOK)
	i.answers("/metrics", http.StatusOK, "blixt_ready 0\n", `blixt_scrape_errors_total{part="maps"} 0`)
	may <- nil
	i.answers("/readyz", http.StatusOK)

	lost.Store(new(errors.New("somebody has unloaded the program")))
	i.answers("/readyz", http.StatusServiceUnavailable, "somebody has unloaded the program: it is being loaded again")
	i.answers("/metrics", http.StatusOK, "blixt_ready 0\n", `blixt_scrape_errors_total{part="maps"} 0`)
	may <- errors.New("no such image")
	i.answers("/readyz", http.StatusServiceUnavailable, "it is being loaded again: no such image")
	may <- nil
	i.answers("/readyz", http.StatusOK)
	i.answers("/metrics", http.StatusOK, "blixt_ready 1\n", "blixt_frontends 1\n")
}

// loses returns a switch: once each time that it is set, the program is lost for this reason.
func (i *instance) loses(why string) *atomic.Bool {
	load, lost := i.Load, &atomic.Bool{}
	i.Load = func(interfaces []hostnet.Interface) (*Loaded, error) {
		l, err := load(interfaces)
		if err == nil {
			l.Lost = func() error {
				if lost.Swap(false) {
					return errors.New(why)
				}
				return nil
			}
		}
		return l, err
	}
	return lost
}

// TestScrapesWhileMapsAreClosed reads metrics all the time while the maps are closed and
// others are opened.
func TestScrapesWhileMapsAreClosed(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.MetricsAddress = metricsAddress
	lost := i.loses("lost")
	i.start()
	i.answers("/readyz", http.StatusOK)
	end := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				// Two are served at a time.
				if code, text, err := get("/metrics"); err != nil || code != http.StatusOK && code != http.StatusServiceUnavailable || strings.Contains(text, `part="maps"} 1`) {
					t.Errorf("%d, %v\n%s", code, err, text)
					return
				}
			}
		})
	}
	for range 3 {
		lost.Store(true)
		i.logs("loading it again")
		i.answers("/readyz", http.StatusOK)
	}
	close(end)
	all.Wait()
}

// A client that never finishes its request does not keep the process from ending.
func TestSlowReaderDoesNotDelayTheEnd(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.MetricsAddress = metricsAddress
	i.start()
	i.answers("/readyz", http.StatusOK)
	c, err := net.Dial("tcp", metricsAddress)
	must(t, err)
	defer c.Close()
	_, err = c.Write([]byte("GET /metrics HTTP/1.1\r\nX-"))
	must(t, err)
	i.answers("/metrics", http.StatusOK, "blixt_ready 1\n")
	i.stop()
}

// notifySocket is the service manager's, which begins to read when hears is first called.
// hears waits until all these words were heard, in this order and after those of the last
// call, and returns what was heard meanwhile.
func notifySocket(t *testing.T) (c *net.UnixConn, hears func(words ...string) string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	heard := &logbook{}
	var begin sync.Once
	text := ""
	return c, func(words ...string) string {
		t.Helper()
		begin.Do(func() {
			go func() {
				message := make([]byte, 4096)
				for {
					n, err := c.Read(message)
					if err != nil {
						return
					}
					_, _ = heard.Write(append(message[:n:n], '\n'))
				}
			}()
		})
		end := 0
		eventually(t, func() error {
			for _, line := range heard.take() {
				text += line + "\n"
			}
			end = 0
			for _, word := range words {
				at := strings.Index(text[end:], word)
				if at < 0 {
					return fmt.Errorf("heard no %q after %q in %q", word, text[:end], text[end:])
				}
				end += at + len(word)
			}
			return nil
		})
		before := text[:end]
		text = text[end:]
		return before
	}
}

func TestServiceManagerHearsWhatHappens(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	reload := make(chan os.Signal)
	i.Reload = reload
	lost := i.loses("somebody has unloaded the program")
	t.Setenv("WATCHDOG_USEC", "30000")
	_, hears := notifySocket(t)
	i.start()
	serving := "STATUS=serving: frontends 1, backends 1\n"
	heard := hears("READY=1\n")
	if !strings.Contains(heard, serving) { // each of the two may be told first
		heard += hears(serving)
	}
	if heard += hears("WATCHDOG=1"); strings.Contains(heard, "RELOADING") {
		t.Errorf("heard %q", heard)
	}
	reload <- unix.SIGHUP
	hears("RELOADING=1\nMONOTONIC_USEC=", "READY=1\n")
	i.put("bad.yaml", "a: [\n")
	hears("STATUS=serving: frontends 1, backends 1; files with mistakes 1, objects 0 (see the log)\n")
	lost.Store(true)
	heard = hears("STATUS=somebody has unloaded the program: it is being loaded again; files", "STATUS=serving: frontends 1")
	if strings.Contains(heard, "READY") {
		t.Errorf("heard %q: it was ready before", heard)
	}
	i.stop()
	hears("STOPPING=1\n")
}

// A service manager that reads nothing delays neither what is served nor the end.
func TestServiceManagerThatDoesNotRead(t *testing.T) {
	veth(t, "eth0")
	c, hears := notifySocket(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	defer unix.Close(fd)
	for err == nil {
		err = unix.Sendto(fd, []byte("of others"), 0, &unix.SockaddrUnix{Name: c.LocalAddr().String()})
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	i := prepare(t, files(80, far4))
	i.start()
	i.serves(far4 + ":80")
	i.write(files(81, far4))
	i.serves(far4 + ":81")
	i.logs("level=WARN", "notify systemd")
	hears("READY=1\n") // once it reads again
	i.stop()
}
