// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
)

// A start is no stricter than what follows it: one file that is foreign, empty or broken
// is said, and the others are served.
func TestForeignFilesDoNotKeepFromStarting(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	for name, text := range map[string]string{
		"docker-compose.yml": "services: {web: {image: nginx}}\n", "package.json": `{"name": "x", "scripts": {}}`, "empty.yaml": "", "broken.yaml": "kind: [",
	} {
		must(t, os.WriteFile(filepath.Join(i.dir, name), []byte(text), 0o644))
	}
	i.start()
	i.serves(far4 + ":80")
	i.logs("level=ERROR", "the file is left out: docker-compose.yml:1: ", "Docker Compose")
	// Nor do they hold up what changes elsewhere.
	i.write(files(81, far4))
	i.serves(far4 + ":81")
}

func TestStartUsesTheFilesThatWereGoodLast(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.Files.StateDir = filepath.Join(t.TempDir(), "state")
	i.start()
	i.serves(far4 + ":80")
	i.stop()
	whole := files(80, far4)
	i.write(whole[:len(whole)/2] + ": [")
	i.start()
	i.serves(far4 + ":80")
	i.logs("level=ERROR", "the last good configuration goes on serving: web.yaml:")
	i.stop()
	must(t, os.Rename(i.dir, i.dir+".away"))
	i.start()
	i.serves(far4 + ":80")
	i.logs("level=ERROR", "the last good configuration goes on serving: read "+i.dir)
	must(t, os.Rename(i.dir+".away", i.dir))
	i.write(files(82, far4))
	i.serves(far4 + ":82")
	i.stop()
	// What was never good cannot be served.
	i.Files.StateDir += "2"
	i.write("kind: [")
	err := Run(t.Context(), i.Options)
	if all, is := errors.AsType[manifest.Errors](err); !is || len(all) != 1 {
		t.Errorf("nothing valid: %v", err)
	}
}

// A file that is written by somebody slow counts when he is done.
func TestSlowWriterTakesNothingDown(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.start()
	i.serves(far4 + ":80")
	i.log.take()
	f, err := os.Create(filepath.Join(i.dir, "web.yaml"))
	must(t, err)
	defer f.Close()
	for _, part := range strings.SplitAfter(files(81, far4), "---\n") {
		time.Sleep(100 * time.Millisecond)
		_, err := f.WriteString(part)
		must(t, err)
		i.serves(far4 + ":80")
	}
	for _, line := range i.log.take() {
		if strings.Contains(line, "yaml") { // others may be about the host
			t.Errorf("it is said of a file that is being written: %s", line)
		}
	}
	must(t, f.Close())
	i.serves(far4 + ":81")
}
