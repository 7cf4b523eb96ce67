//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/packages"
)

// output returns what a command prints, which succeeds.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestLintianFindsNothing(t *testing.T) {
	if out := output(t, "lintian", "--allow-root", "--pedantic", file("deb", "0.9.1")); out != "" {
		t.Errorf("lintian:\n%s", out)
	}
}

// TestBothFormatsInstallTheSameFiles, but for those that each has in its own place.
func TestBothFormatsInstallTheSameFiles(t *testing.T) {
	owned := regexp.MustCompile(`^(-rwxr-xr-x|-rw-r--r--|drwxr-xr-x) .*\broot[/ ]+root .*?(/\S+?)/?$`)
	files := func(text string) map[string]bool {
		all := map[string]bool{}
		for line := range strings.Lines(text) {
			m := owned.FindStringSubmatch(strings.TrimSpace(strings.Replace(line, " ./", " /", 1)))
			if m == nil {
				t.Errorf("a file is not root's, or others may write it: %s", line)
			} else if m[1][0] == '-' || m[2] == "/etc/blixt" {
				all[m[2]] = true
			}
		}
		return all
	}
	deb := files(output(t, "dpkg-deb", "--contents", file("deb", "0.9.1")))
	rpm := files(output(t, "rpm", "--query", "--package", "--list", "--verbose", file("rpm", "0.9.1")))
	for _, place := range []string{"/usr/share/zsh/", "/usr/share/doc/", "/usr/share/lintian/", "/usr/share/licenses/"} {
		for _, all := range []map[string]bool{deb, rpm} {
			for path := range all {
				if strings.HasPrefix(path, place) {
					delete(all, path)
				}
			}
		}
	}
	if len(deb) < 40 {
		t.Errorf("the deb has only %d files", len(deb))
	}
	for path := range deb {
		if !rpm[path] {
			t.Errorf("the rpm lacks %s", path)
		}
		delete(rpm, path)
	}
	for path := range rpm {
		t.Errorf("the deb lacks %s", path)
	}
}

// TestEqualInputGivesEqualPackages whatever the time, the place, the umask and the
// environment are.
func TestEqualInputGivesEqualPackages(t *testing.T) {
	o := options
	o.Version, o.Out = versions[0], t.TempDir()
	for name, value := range map[string]string{"TZ": "Asia/Tokyo", "LC_ALL": "de_DE.UTF-8", "SOURCE_DATE_EPOCH": "1", "TMPDIR": t.TempDir(), "HOME": "/nonexistent", "GOMAXPROCS": "1"} {
		t.Setenv(name, value)
	}
	old := syscall.Umask(0o077)
	files, err := packages.Build(t.Context(), o)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		a, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(built, filepath.Base(path)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs", filepath.Base(path))
		}
	}
}

// TestVersionsSort as managers of packages sort them: what comes before a release is older.
func TestVersionsSort(t *testing.T) {
	program := filepath.Join(t.TempDir(), "blixt")
	if err := os.WriteFile(program, []byte("small"), 0o755); err != nil {
		t.Fatal(err)
	}
	var before [2]string
	for _, version := range []string{"v1.2.3-alpha.1", "v1.2.3-rc.2", "v1.2.3-rc.10", "v1.2.3", "v1.2.4-rc.1", "v1.10.0"} {
		o := options
		o.Version, o.Out, o.Binary = version, t.TempDir(), &release.Binary{Path: program, Arch: "arm64"}
		files, err := packages.Build(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		deb := output(t, "dpkg-deb", "--field", files[0], "Version")
		rpm := output(t, "rpm", "--query", "--package", "--queryformat=%{VERSION}", files[1])
		arch := output(t, "dpkg-deb", "--field", files[0], "Architecture") + output(t, "rpm", "--query", "--package", "--queryformat=%{ARCH} %{BUILDHOST}", files[1])
		if arch != "arm64\naarch64 localhost" {
			t.Errorf("architectures, and the host that built: %q", arch)
		}
		now := [2]string{strings.TrimSpace(deb), rpm}
		if before[0] != "" {
			output(t, "dpkg", "--compare-versions", before[0], "lt", now[0])
			if c := output(t, "rpm", "--eval", `%{lua:print(rpm.vercmp("`+before[1]+`", "`+now[1]+`"))}`); strings.TrimSpace(c) != "-1" {
				t.Errorf("to rpm %s is not older than %s: %s", before[1], now[1], c)
			}
		}
		before = now
	}
}

// TestHostWithoutSystemdInstallsAndRemoves, as containers are. Nothing of the machine's own
// files changes.
func TestHostWithoutSystemdInstallsAndRemoves(t *testing.T) {
	const script = `set -e
root=$1 dir=$2 deb=$3 rpm=$4
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
cp "$deb" "$dir/root/a.deb"
cp "$rpm" "$dir/root/a.rpm"
mount -t proc proc "$dir/root/proc"
within() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$dir/root" "$@"; }
within mkdir -p /run/blixt
within dpkg --install /a.deb
within blixt version
within dpkg --install /a.deb
within dpkg --remove blixt
within dpkg --purge blixt
within rpm --force-debian --install /a.rpm
within blixt version
within rpm --force-debian --upgrade --replacepkgs /a.rpm
within rpm --force-debian --erase blixt
if within test -e /etc/blixt; then echo /etc/blixt is left; exit 1; fi
`
	c := exec.Command("sh", "-c", script, "sh", *rootDir, t.TempDir(), file("deb", "0.9.0"), file("rpm", "0.9.0"))
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if regexp.MustCompile(`(?i)error|warn|fail|not found`).MatchString(line) {
			t.Errorf("it says %s", line)
		}
	}
	if n := strings.Count(string(out), runtime.GOARCH); n != 2 {
		t.Errorf("blixt version says %d times that it is for %s:\n%s", n, runtime.GOARCH, out)
	}
}
