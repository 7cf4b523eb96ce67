// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// keyPair writes a plain key pair, as openssl does.
func (m *managed) keyPair(name string) (private, public string) {
	m.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	m.check(err)
	write := func(file, kind string, der []byte, err error) string {
		m.Helper()
		m.check(err)
		path := filepath.Join(m.Dir(), name+file)
		m.check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	der, err := x509.MarshalECPrivateKey(key)
	private = write(".key", "EC PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(&key.PublicKey)
	return private, write(".pub", "PUBLIC KEY", der, err)
}

// builtin has the built-in loader load, with all of root's capabilities.
func (m *managed) builtin() *managed {
	m.Helper()
	b, err := m.Standard.Blixt(m.Balancer, executable, m.config, "eth0", "eth1")
	m.check(err)
	w := *m.world
	w.blixt = b
	return &managed{world: &w, bpfman: m.bpfman}
}

// TestBytecodeThatIsRefused is the same whoever loads: Blixt looks first.
func TestBytecodeThatIsRefused(t *testing.T) {
	m := newManaged(t, "refused", 2)
	r := m.startRegistry()
	r.trust()
	private, public := m.keyPair("ours")
	_, other := m.keyPair("theirs")
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
	refused := func(what string, m *managed, args []string, first int, after func(*managed)) {
		for _, c := range cases[first:] {
			m.Run(what+": "+c.name, func(t *testing.T) {
				m := &managed{world: m.in(t), bpfman: m.bpfman}
				m.blixt.Args = slices.Concat(args, []string{"--bytecode", c.image, "--ca-file", r.ca}, c.args)
				m.refuses(m.blixt.Start(), c.says...)
				after(m)
			})
		}
	}
	for loader, m := range map[string]*managed{"bpfman": m, "builtin": m.builtin()} {
		args := m.blixt.Args
		refused(loader, m, args, 1, (*managed).nothingLeft)
		verified := append(slices.Clone(args), "--bytecode", good, "--ca-file", r.ca, "--verify-key", public)
		m.blixt.Args = append(verified, "--keep")
		m.check(m.blixt.Start())
		before := m.status().Program
		if before.Image != good {
			t.Errorf("status says that it was read from %q, want %q", before.Image, good)
		}
		m.check(m.blixt.Stop())
		refused(loader+", serving", m, append(args, "--replace"), 0, func(m *managed) {
			m.Helper()
			m.carries()
			if diff := cmp.Diff(before, m.status().Program); diff != "" {
				m.Errorf("what served was replaced (-before +now):\n%s", diff)
			}
		})
		m.blixt.Args = verified
		m.check(m.blixt.Start())
		m.check(m.blixt.Stop())
		m.nothingLeft()
	}
}

// TestBytecodeThatBpfmanCannotGet is of what Blixt got, and found good.
func TestBytecodeThatBpfmanCannotGet(t *testing.T) {
	m := newManaged(t, "bpfman-pull", 2)
	r := m.startRegistry()
	r.trust()
	good, bad := r.push("blixt/bytecode"), r.push(halfSafe)
	args := m.blixt.Args
	another := append(slices.Clone(args), "--flows", "131072")
	m.blixt.Args = append(another, "--keep")
	m.check(m.blixt.Start())
	before := m.status().Program
	m.check(m.blixt.Stop())
	m.blixt.Args = append(args, "--bytecode", bad, "--ca-file", r.ca)
	m.refuses(m.blixt.Start(), "bpfman: load "+bad)
	m.carries() // by the version of before
	if now := m.status().Program; now.ProgramID != before.ProgramID || !slices.Equal(now.Links, before.Links) {
		t.Errorf("%+v was replaced by %+v", before, now)
	}
	m.blixt.Args = another
	m.check(m.blixt.Start())
	m.check(m.blixt.Stop())
	m.nothingLeft()

	policy := func(text string) {
		t.Helper()
		m.check(os.WriteFile(m.bpfman.Path("/etc/bpfman/bpfman.toml"), []byte("[signing]\n"+text), 0o644))
	}
	for _, c := range []struct {
		name, image string
		before      func()
		says        []string
	}{
		{"a layer that is damaged on the way", bad, func() {}, []string{"bpfman: load " + bad, "nvalid digest", "push the image again"}},
		// It wants Sigstore's keys from the Internet first, which it does not reach.
		{"unsigned, and signatures wanted", good, func() { policy("allow_unsigned = false\nverify_enabled = true\n") }, []string{"bpfman: load " + good, "sigstore", "verify_enabled = false", "--verify-key"}},
		{"no registry", good, func() {
			policy("allow_unsigned = true\nverify_enabled = false\n")
			r.toBpfman.CloseClientConnections()
			r.toBpfman.Close()
		}, []string{"bpfman: load " + good, "Failed to pull", "the registry must be reachable for it by HTTPS", "blixt bytecode pull"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &managed{world: m.in(t), bpfman: m.bpfman}
			c.before()
			m.blixt.Args = append(args, "--bytecode", c.image, "--ca-file", r.ca)
			m.refuses(m.blixt.Start(), c.says...)
			m.nothingLeft()
		})
	}
}

// TestBpfmanOnAFullDisk fills the one that has bpfman's database, while
// another image is to be stored in it.
func TestBpfmanOnAFullDisk(t *testing.T) {
	m := newManaged(t, "bpfman-full", 2)
	r := m.startRegistry()
	r.trust()
	m.blixt.Args = append(m.blixt.Args, "--bytecode", r.push("blixt/bytecode"), "--ca-file", r.ca)
	m.nothingLeft() // and the database is there
	// Room for what its database writes before an image, but not for one.
	_, err := m.bpfman.Shell("mount -o remount,size=$(($(du -sk /run/bpfman | cut -f1) + 600))k /run/bpfman")
	m.check(err)
	ended := make(chan error, 1)
	go func() { ended <- m.blixt.Start() }()
	m.check(lab.Eventually(3*patience, func() error { // it pulls before
		if log := m.bpfman.Log(); !strings.Contains(log, "No space left on device") {
			return fmt.Errorf("bpfman says %q", log)
		}
		return nil
	}))
	// It does not answer any more: its database waits for room, for ever.
	m.check(m.bpfman.Kill())
	m.refuses(<-ended, "bpfman has ended or is stuck", "after a full disk")
	_, err = m.bpfman.Shell("mount -o remount,size=16m /run/bpfman")
	m.check(err)
	m.check(m.bpfman.Start())
	m.nothingLeft()
	m.check(m.blixt.Start())
	m.carries()
	m.check(m.blixt.Stop())
	m.nothingLeft()
}

// TestPullOntoAFullDisk leaves nothing there.
func TestPullOntoAFullDisk(t *testing.T) {
	m := newManaged(t, "pull-full", 1)
	r := m.startRegistry()
	left, err := m.Balancer.Run(patience, "unshare", "--mount", "bash", "-uc", `mount -t tmpfs -o size=100k full /mnt
		"$@"
		code=$?
		ls -A /mnt
		exit $code`, "bash", executable, "bytecode", "pull", r.push("blixt/bytecode"), "-d", "/mnt/out", "--ca-file", r.ca)
	m.refuses(err, "write layout /mnt/out: no space left on device: make room there, or choose another directory")
	if left != "" {
		t.Errorf("left there: %q", left)
	}
}
