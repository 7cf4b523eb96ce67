// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/e2e/lib/umask"
)

// TestSoftwareThatOthersWrote uses curl, dig and iperf3 with nginx, dnsmasq and iperf3,
// with all offloads on, as in production.
func TestSoftwareThatOthersWrote(t *testing.T) {
	w := labtest.New(t, "software", 2, 1)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		80:   append(lab.Endpoints(8000, w.Backends...), lab.On("balancer", lab.Endpoints(8000, w.Pods...))...),
		53:   lab.Endpoints(5300, w.Backends...),
		5201: lab.Endpoints(5201, w.Backends[0]),
		5202: lab.On("balancer", lab.Endpoints(5201, w.Pods[0])),
	}))
	t.Run("curl and nginx", func(t *testing.T) { checkWeb(w.In(t)) })
	t.Run("dig and dnsmasq", func(t *testing.T) { checkNames(w.In(t)) })
	t.Run("iperf3", func(t *testing.T) { checkThroughput(w.In(t)) })
	w.CheckChecksums()
}

// checkWeb fetches 10 MB twice on one connection.
func checkWeb(w *labtest.World) {
	umask.Open(w.T)
	dir := filepath.Join(w.Dir(), "web")
	w.Check(os.MkdirAll(dir, 0o755))
	w.Check(os.Chmod(w.Dir(), 0o755)) // nginx's workers are nobody
	content := make([]byte, 10<<20)
	_, _ = rand.NewChaCha8([32]byte{'w', 'e', 'b'}).Read(content) // never fails
	w.Check(os.WriteFile(filepath.Join(dir, "file"), content, 0o644))
	w.Check(os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(fmt.Sprintf(`
daemon off; worker_processes 1; error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/t; proxy_temp_path %[1]s/t; fastcgi_temp_path %[1]s/t;
	uwsgi_temp_path %[1]s/t; scgi_temp_path %[1]s/t;
	server { listen 8000; listen [::]:8000; root %[1]s; }
}`, dir)), 0o644))
	for _, n := range append(w.Backends, w.Pods...) {
		pid := fmt.Sprintf("pid %s/%s.pid;", dir, n.Name) // which nginx removes at the end
		_, err := n.Daemon("nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-g", pid)
		w.Check(err)
		w.Check(listening(n, 8000))
	}
	sum := sha256.Sum256(content)
	for _, family := range []int{4, 6} {
		addr := labtest.VIP(family, 80)
		got := filepath.Join(w.Dir(), "got")
		s := w.Count(func() {
			url := "http://" + addr + "/file"
			out, err := w.Client.Run(2*labtest.Patience, "curl", "--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*",
				"--write-out", "%{num_connects} ", url, "--output", got+"1", url, "--output", got+"2")
			w.Check(err)
			if out != "1 0 " {
				w.Errorf("curl made connections %q for two files, want one for both", out)
			}
		})
		for _, n := range []string{"1", "2"} {
			text, err := os.ReadFile(got + n)
			w.Check(err)
			if sha256.Sum256(text) != sum {
				w.Errorf("file %s arrives as %d bytes with hash %s", n, len(text), hex.EncodeToString(sum[:8]))
			}
		}
		w.CheckCarried(s, "tcp", addr, 1, 100, 2*len(content))
	}
}

// checkNames queries by UDP and, as for long answers, by TCP.
func checkNames(w *labtest.World) {
	for _, n := range w.Backends {
		_, err := n.Daemon("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file=",
			"--port=5300", "--no-resolv", "--no-hosts", "--bind-interfaces",
			"--address=/blixt.test/192.0.2.80", "--address=/blixt.test/2001:db8::80")
		w.Check(err)
		w.Check(listening(n, 5300))
	}
	for _, family := range []int{4, 6} {
		for _, network := range []string{"udp", "tcp"} {
			addr := labtest.VIP(family, 53)
			const questions = 5
			s := w.Count(func() {
				for range questions {
					for kind, want := range map[string]string{"A": "192.0.2.80", "AAAA": "2001:db8::80"} {
						args := []string{"@" + map[int]string{4: lab.VIP4, 6: lab.VIP6}[family], "-r", "+short", "+tries=1", "+time=5"}
						if network == "tcp" {
							args = append(args, "+tcp")
						} else {
							args = append(args, fmt.Sprintf("-b%s#%d", own(w.Client, family), labtest.NewPort()))
						}
						out, err := w.Client.Run(2*labtest.Patience, "dig", append(args, "blixt.test", kind)...)
						w.Check(err)
						if strings.TrimSpace(out) != want {
							w.Errorf("dig %s says %q, want %s", kind, out, want)
						}
					}
				}
			})
			w.CheckCarried(s, network, addr, 2*questions, 2*questions*30, 2*questions*30)
		}
	}
}

// checkThroughput sends for a second each way, in large segments that no device on the
// way splits.
func checkThroughput(w *labtest.World) {
	servers := []*lab.Node{w.Backends[0], w.Pods[0]}
	for _, n := range servers {
		_, err := n.Daemon("iperf3", "--server", "--port", "5201")
		w.Check(err)
		w.Check(listening(n, 5201))
	}
	for _, test := range []struct {
		name string
		port int
		args []string
		udp  bool
	}{
		{"TCP to remote", 5201, nil, false},
		{"TCP from remote", 5201, []string{"--reverse"}, false},
		{"TCP to pod", 5202, nil, false},
		{"TCP from pod", 5202, []string{"--reverse"}, false},
		{"UDP to remote", 5201, []string{"--udp", "--bitrate", "100M"}, true},
		{"UDP from pod", 5202, []string{"--udp", "--bitrate", "100M", "--reverse"}, true},
	} {
		family := 4
		if strings.Contains(test.name, "pod") {
			family = 6
		}
		w.Run(test.name, func(t *testing.T) {
			w := w.In(t)
			addr, network := labtest.VIP(family, test.port), "tcp"
			if test.udp {
				network = "udp"
			}
			var result struct {
				End struct {
					Sum      transfer `json:"sum"` // UDP
					Received transfer `json:"sum_received"`
				} `json:"end"`
			}
			s := w.Count(func() {
				ip := map[int]string{4: lab.VIP4, 6: lab.VIP6}[family]
				args := append([]string{"--client", ip, "--port", fmt.Sprint(test.port), "--time", "1", "--json"}, test.args...)
				out, err := w.Client.Run(4*labtest.Patience, "iperf3", args...)
				w.Check(err)
				w.Check(json.Unmarshal([]byte(out), &result))
			})
			got := result.End.Received
			if test.udp {
				got = result.End.Sum
			}
			t.Logf("%.0f Mbit/s", got.BitsPerSecond/1e6)
			bytes := int(got.Bytes * (1 - got.LostPercent/100))
			if test.name[:3] == "UDP" && got.LostPercent > 20 || bytes < 1<<20 {
				t.Errorf("%d bytes arrive, %.1f%% are lost", bytes, got.LostPercent)
			}
			to, back := bytes, 0
			if strings.Contains(test.name, "from") {
				to, back = 0, bytes
			}
			w.CheckCarried(s, network, addr, map[bool]int{false: 2, true: 1}[test.udp], to, back)
		})
	}
}

// transfer is iperf3's report of one transfer.
type transfer struct {
	Bytes         float64 `json:"bytes"`
	BitsPerSecond float64 `json:"bits_per_second"`
	LostPercent   float64 `json:"lost_percent"`
}

// listening waits until a server of the node listens, in both families.
func listening(n *lab.Node, port int) error {
	return lab.Eventually(labtest.Patience, func() error {
		for _, ip := range []string{n.IPv4, n.IPv6} {
			c, err := n.Dial("tcp", "", labtest.At(ip, port), time.Second)
			if err != nil {
				return err
			}
			_ = c.Close()
		}
		return nil
	})
}
