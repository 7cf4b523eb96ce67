// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package images

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// keyPair writes a plain key pair, as openssl does.
func keyPair(m *labtest.Managed, name string) (private, public string) {
	m.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	m.Check(err)
	write := func(file, kind string, der []byte, err error) string {
		m.Helper()
		m.Check(err)
		path := filepath.Join(m.Dir(), name+file)
		m.Check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	der, err := x509.MarshalECPrivateKey(key)
	private = write(".key", "EC PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(&key.PublicKey)
	return private, write(".pub", "PUBLIC KEY", der, err)
}

// builtin has the built-in loader load the program, with all of root's capabilities.
func builtin(m *labtest.Managed) *labtest.Managed {
	m.Helper()
	b, err := m.Standard.Blixt(m.Balancer, labtest.Binary, m.Config, "eth0", "eth1")
	m.Check(err)
	w := *m.World
	w.Blixt = b
	return &labtest.Managed{World: &w, Bpfman: m.Bpfman}
}

// TestBytecodeThatIsRefused is the same for both loaders: Blixt checks bytecode first.
func TestBytecodeThatIsRefused(t *testing.T) {
	m := labtest.NewManaged(t, "refused", 2)
	r := startRegistry(m)
	r.trust()
	private, public := keyPair(m, "ours")
	_, other := keyPair(m, "theirs")
	good, bad := r.push("blixt/bytecode"), r.push(damaged)
	r.blixt("sign", good, "--key", private)
	unsigned := r.push("blixt/unsigned")
	relabelled := r.relabel(good, "blixt/labels", "io.ebpf.programs", `{"blixt":"xdp"}`)
	cases := []struct {
		name, image string
		args, says  []string
	}{
		{"no registry", "127.0.0.1:1/blixt/bytecode:v1", nil, []string{"127.0.0.1:1 cannot be reached"}},
		{"a layer that is damaged", bad, nil, []string{bad, "is not what the digest stands for", "push the image again"}},
		{"a label that is wrong", relabelled, nil, []string{relabelled, `label io.ebpf.programs is {"blixt":"xdp"}, the object in it has {"blixt":"tcx"}`, "build the image again"}},
		{"no signature", unsigned, []string{"--verify-key", public}, []string{unsigned + " is not signed", "blixt bytecode sign"}},
		{"the signature of another", good, []string{"--verify-key", other}, []string{good + " has no signature that counts", "the right key"}},
	}
	refused := func(what string, m *labtest.Managed, args []string, first int, after func(*labtest.Managed)) {
		for _, c := range cases[first:] {
			m.Run(what+": "+c.name, func(t *testing.T) {
				m := &labtest.Managed{World: m.In(t), Bpfman: m.Bpfman}
				m.Blixt.Args = slices.Concat(args, []string{"--bytecode", c.image, "--ca-file", r.ca}, c.args)
				m.CheckRefused(m.Blixt.Start(), c.says...)
				after(m)
			})
		}
	}
	for loader, m := range map[string]*labtest.Managed{"bpfman": m, "builtin": builtin(m)} {
		args := m.Blixt.Args
		refused(loader, m, args, 1, (*labtest.Managed).CheckNothingLeft)
		verified := append(slices.Clone(args), "--bytecode", good, "--ca-file", r.ca, "--verify-key", public)
		m.Blixt.Args = append(verified, "--keep")
		m.Check(m.Blixt.Start())
		before := m.Status().Program
		if before.Image != good {
			t.Errorf("status says that it was read from %q, want %q", before.Image, good)
		}
		m.Check(m.Blixt.Stop())
		refused(loader+", serving", m, append(args, "--replace"), 0, func(m *labtest.Managed) {
			m.Helper()
			m.CheckCarries()
			if diff := cmp.Diff(before, m.Status().Program); diff != "" {
				m.Errorf("what served was replaced (-before +now):\n%s", diff)
			}
		})
		m.Blixt.Args = verified
		m.Check(m.Blixt.Start())
		m.Check(m.Blixt.Stop())
		m.CheckNothingLeft()
	}
}

// TestBytecodeThatBpfmanCannotGet has bpfman fail to pull an image that Blixt has
// pulled and found good.
func TestBytecodeThatBpfmanCannotGet(t *testing.T) {
	m := labtest.NewManaged(t, "bpfman-pull", 2)
	r := startRegistry(m)
	r.trust()
	good, bad := r.push("blixt/bytecode"), r.push(halfSafe)
	args := m.Blixt.Args
	another := append(slices.Clone(args), "--flows", "131072")
	m.Blixt.Args = append(another, "--keep")
	m.Check(m.Blixt.Start())
	before := m.Status().Program
	m.Check(m.Blixt.Stop())
	m.Blixt.Args = append(args, "--bytecode", bad, "--ca-file", r.ca)
	m.CheckRefused(m.Blixt.Start(), "bpfman: load "+bad)
	m.CheckCarries() // the previous version still serves
	if now := m.Status().Program; now.ProgramID != before.ProgramID || !reflect.DeepEqual(now.Links, before.Links) {
		t.Errorf("%+v was replaced by %+v", before, now)
	}
	m.Blixt.Args = another
	m.Check(m.Blixt.Start())
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()

	policy := func(text string) {
		t.Helper()
		m.Check(os.WriteFile(m.Bpfman.Path("/etc/bpfman/bpfman.toml"), []byte("[signing]\n"+text), 0o644))
	}
	for _, c := range []struct {
		name, image string
		before      func()
		says        []string
	}{
		{"a layer that is damaged on the way", bad, func() {}, []string{"bpfman: load " + bad, "nvalid digest", "push the image again"}},
		// bpfman first fetches Sigstore's keys from the Internet, which it does not reach.
		{"unsigned, and signatures wanted", good, func() { policy("allow_unsigned = false\nverify_enabled = true\n") }, []string{"bpfman: load " + good, "sigstore", "verify_enabled = false", "--verify-key"}},
		{"no registry", good, func() {
			policy("allow_unsigned = true\nverify_enabled = false\n")
			r.toBpfman.CloseClientConnections()
			r.toBpfman.Close()
		}, []string{"bpfman: load " + good, "Failed to pull", "the registry must be reachable for it by HTTPS", "blixt bytecode pull"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &labtest.Managed{World: m.In(t), Bpfman: m.Bpfman}
			c.before()
			m.Blixt.Args = append(args, "--bytecode", c.image, "--ca-file", r.ca)
			m.CheckRefused(m.Blixt.Start(), c.says...)
			m.CheckNothingLeft()
		})
	}
}

// TestBpfmanOnAFullDisk fills the disk that has bpfman's database, while another image
// is stored in it.
func TestBpfmanOnAFullDisk(t *testing.T) {
	m := labtest.NewManaged(t, "bpfman-full", 2)
	r := startRegistry(m)
	r.trust()
	m.Blixt.Args = append(m.Blixt.Args, "--bytecode", r.push("blixt/bytecode"), "--ca-file", r.ca)
	m.CheckNothingLeft() // the database still works
	// Leave room for what the database writes before an image, but not for an image.
	_, err := m.Bpfman.Shell("mount -o remount,size=$(($(du -sk /run/bpfman | cut -f1) + 600))k /run/bpfman")
	m.Check(err)
	ended := make(chan error, 1)
	go func() { ended <- m.Blixt.Start() }()
	m.Check(lab.Eventually(3*labtest.Patience, func() error { // it pulls first
		if log := m.Bpfman.Log(); !strings.Contains(log, "No space left on device") {
			return fmt.Errorf("bpfman says %q", log)
		}
		return nil
	}))
	// bpfman does not answer any more: its database waits for room forever.
	m.Check(m.Bpfman.Kill())
	m.CheckRefused(<-ended, "bpfman has ended or is stuck", "after a full disk")
	_, err = m.Bpfman.Shell("mount -o remount,size=16m /run/bpfman")
	m.Check(err)
	m.Check(m.Bpfman.Start())
	m.CheckNothingLeft()
	m.Check(m.Blixt.Start())
	m.CheckCarries()
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}

// TestPullOntoAFullDisk checks that a failed pull leaves nothing on the disk.
func TestPullOntoAFullDisk(t *testing.T) {
	m := labtest.NewManaged(t, "pull-full", 1)
	r := startRegistry(m)
	left, err := m.Balancer.Run(labtest.Patience, "unshare", "--mount", "bash", "-uc", `mount -t tmpfs -o size=100k full /mnt
		"$@"
		code=$?
		ls -A /mnt
		exit $code`, "bash", labtest.Binary, "bytecode", "pull", r.push("blixt/bytecode"), "-d", "/mnt/out", "--ca-file", r.ca)
	m.CheckRefused(err, "write layout /mnt/out: no space left on device: make room there, or choose another directory")
	if left != "" {
		t.Errorf("left there: %q", left)
	}
}
