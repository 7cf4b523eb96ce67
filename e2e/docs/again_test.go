// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// killed has the test binary begin a document, in another process, that is killed in its midst.
const killed = "BLIXT_TEST_KILLED"

// What a killed run leaves, processes and a load balancer that serves, disturbs no later one.
func TestRunAfterAKilledOne(t *testing.T) {
	const page = "<!-- run: host, background -->\n```sh\nblixt run --listen 192.0.2.10:80 --backend 10.0.0.1:8080 --backend 10.0.0.2:8080\n```\n" +
		"<!-- run: client -->\n```console\n$ curl -s http://192.0.2.10/ | cut -c1-4\nweb-\n```\n"
	blocks := document.Parse("a.md", []byte(page))
	if os.Getenv(killed) != "" {
		w := network(t, "killed", []string{"host", "client"})
		r := w.reader(t)
		if err := r.Follow(blocks); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("serving\n")
		select {}
	}
	c := exec.Command("/proc/self/exe", "-test.run=^TestRunAfterAKilledOne$")
	c.Env = append(os.Environ(), killed+"=1", "BLIXT_BINARY="+labtest.Binary, "TMPDIR="+t.TempDir())
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "serving") {
		t.Log(lines.Text())
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("it was not killed: %v", err)
	}
	if err := follow(t, "killed", blocks); err != nil {
		t.Error(err)
	}
}
