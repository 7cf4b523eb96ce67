// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/releasetest"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want an error with %q", err, text)
		}
	}
}

// target is a registry that counts what it is asked, and may refuse writes.
type target struct {
	host, ca string
	requests atomic.Int32
	writes   atomic.Int32 // of manifests
	refuse   atomic.Int32 // from this write on; 0: none
}

func start(t *testing.T, referrers bool) *target {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // no credentials of whoever runs this
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	r := &target{}
	next := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.requests.Add(1)
		if q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/manifests/") {
			if n := r.writes.Add(1); r.refuse.Load() > 0 && n >= r.refuse.Load() {
				w.WriteHeader(http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, q)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "https://")
	r.ca = filepath.Join(t.TempDir(), "ca.crt")
	check(t, os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	return r
}

func (r *target) options() bytecode.Options {
	return bytecode.Options{CAFile: r.ca, Pause: time.Millisecond}
}

func key(t *testing.T) Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	_, err := bytecode.GenerateKey(path)
	check(t, err)
	k, err := bytecode.ReadPrivateKey(path, nil)
	check(t, err)
	return Key{k}
}

// wantPublished wants everything at its tags, signed and attested by the key, once.
func wantPublished(t *testing.T, r *target, dir string, k Key) {
	t.Helper()
	list, err := release.Read(dir)
	check(t, err)
	for _, image := range list.Images {
		digest, err := bytecode.Tagged(t.Context(), image.Repository+":"+image.Tag, r.options())
		check(t, err)
		if digest != image.Digest {
			t.Errorf("%s is %s, want %s", image.Repository, digest, image.Digest)
		}
		digests := []string{image.Digest}
		for _, m := range image.Manifests {
			digests = append(digests, m.Digest)
		}
		for _, digest := range digests {
			stored, err := bytecode.Open(t.Context(), image.Repository+"@"+digest, r.options())
			check(t, err)
			signatures, err := stored.Verify([]*bytecode.PublicKey{k.Public})
			check(t, err)
			attestations, err := stored.Attestations([]*bytecode.PublicKey{k.Public})
			check(t, err)
			kinds := map[string]int{}
			for _, s := range signatures {
				kinds[s.Kind+" by "+s.VerifiedBy]++
			}
			for _, a := range attestations {
				if !slices.Equal(a.Subjects, []string{digest}) {
					t.Errorf("%s states something about %s, want %s alone", a.PredicateType, a.Subjects, digest)
				}
				kinds[a.PredicateType+" by "+a.VerifiedBy]++
			}
			by := " by " + k.Public.Name
			for _, kind := range []string{bytecode.KindBundle + by, bytecode.KindSimple + by, bytecode.PredicateSPDX + by, bytecode.PredicateProvenance + by} {
				if kinds[kind] != 1 {
					t.Errorf("%s@%s has %v, want one %s", image.Repository, digest, kinds, kind)
				}
			}
		}
	}
	sums, err := os.ReadFile(filepath.Join(dir, sumsName))
	check(t, err)
	signature, err := os.ReadFile(filepath.Join(dir, signatureName))
	check(t, err)
	if err := bytecode.VerifyBlob(signature, sums, k.Public); err != nil {
		t.Error(err)
	}
}

func run(t *testing.T, r *target, dir string, k Key) (string, error) {
	t.Helper()
	var out strings.Builder
	err := Run(t.Context(), Options{Dist: dir, Signer: k, Remote: r.options(), Log: io.Discard}, &out)
	return out.String(), err
}

func TestReleaseIsPublished(t *testing.T) {
	for name, referrers := range map[string]bool{"referrers": true, "tags instead of referrers": false} {
		t.Run(name, func(t *testing.T) {
			r, k := start(t, referrers), key(t)
			dir := releasetest.Make(t, r.host+"/team/blixt")
			said, err := run(t, r, dir, k)
			check(t, err)
			wantPublished(t, r, dir, k)
			for _, text := range []string{"cosign verify --key", "verify-attestation --type slsaprovenance1", "--type spdxjson", "cosign verify-blob", "/team/blixt/operator@sha256:"} {
				if !strings.Contains(said, text) {
					t.Errorf("printed was %s, want %q", said, text)
				}
			}
			before, err := os.ReadFile(filepath.Join(dir, signatureName))
			check(t, err)
			again, err := run(t, r, dir, k)
			check(t, err)
			wantPublished(t, r, dir, k)
			after, err := os.ReadFile(filepath.Join(dir, signatureName))
			check(t, err)
			if again != said || string(before) != string(after) {
				t.Errorf("the second run has signed again, or printed %s", again)
			}
		})
	}
}

// Whenever a run dies, nothing has a tag that is not complete, and the next run goes on.
func TestKilledRunIsCompleted(t *testing.T) {
	r, k := start(t, false), key(t)
	dir := releasetest.Make(t, r.host+"/team/blixt")
	_, err := run(t, r, dir, k)
	check(t, err)
	all := r.writes.Load()
	for n := int32(1); n <= all; n += 15 {
		r := start(t, false)
		dir := releasetest.Make(t, r.host+"/team/blixt")
		r.refuse.Store(n)
		if _, err := run(t, r, dir, k); err == nil {
			t.Fatalf("write %d was refused without an error", n)
		}
		r.refuse.Store(0)
		_, err := run(t, r, dir, k)
		check(t, err)
		wantPublished(t, r, dir, k)
	}
}

func TestTagsComeLast(t *testing.T) {
	k := key(t)
	whole := start(t, true)
	_, err := run(t, whole, releasetest.Make(t, whole.host+"/team/blixt"), k)
	check(t, err)

	r := start(t, true)
	r.refuse.Store(whole.writes.Load() - 2) // the tags are three
	dir := releasetest.Make(t, r.host+"/team/blixt")
	list, err := release.Read(dir)
	check(t, err)
	_, err = run(t, r, dir, k)
	wantError(t, err, "403")
	for _, image := range list.Images {
		if digest, err := bytecode.Tagged(t.Context(), image.Repository+":"+image.Tag, r.options()); err != nil || digest != "" {
			t.Errorf("%s has its tag (%v)", image.Repository, err)
		}
	}
	r.refuse.Store(0)
	_, err = run(t, r, dir, k)
	check(t, err)
	wantPublished(t, r, dir, k)
}

// A version that was published is that version for ever.
func TestPublishedVersionIsNotReplaced(t *testing.T) {
	r, k := start(t, true), key(t)
	_, err := run(t, r, releasetest.Make(t, r.host+"/team/blixt"), k)
	check(t, err)
	writes := r.writes.Load()
	_, err = run(t, r, releasetest.Make(t, r.host+"/team/blixt"), k) // random images: others
	wantError(t, err, "/operator:v1.2.3 is published already", "/charts/blixt:v1.2.3 is published already", "release another version")
	if r.writes.Load() != writes {
		t.Error("something was pushed all the same")
	}
}

func TestUntaggedCommitIsNotPublished(t *testing.T) {
	r, k := start(t, true), key(t)
	dir := releasetest.Make(t, r.host+"/team/blixt")
	releasetest.Edit(t, dir, func(l *release.Release) { l.Tagged = false })
	_, err := run(t, r, dir, k)
	wantError(t, err, "without the tag v1.2.3", "-untagged")
	if r.requests.Load() > 0 {
		t.Error("the registry was asked")
	}
	check(t, Run(t.Context(), Options{Dist: dir, Untagged: true, Signer: k, Remote: r.options(), Log: io.Discard}, io.Discard))
	wantPublished(t, r, dir, k)
}

// What was changed after the build would be signed, and then be trusted.
func TestChangedReleaseIsRefused(t *testing.T) {
	archive := "blixt_1.2.3_linux_amd64.tar.gz"
	blob := func(dir string) string {
		all, err := filepath.Glob(filepath.Join(dir, "oci/operator/blobs/sha256/*"))
		check(t, err)
		return all[0]
	}
	for _, c := range []struct {
		name, text string
		change     func(dir string) error
	}{
		{"file", archive + ": it has the digest", func(dir string) error { return os.WriteFile(filepath.Join(dir, archive), []byte("other"), 0o644) }},
		{"file and checksum", archive + ": SHA256SUMS and release.json disagree", func(dir string) error {
			err := os.WriteFile(filepath.Join(dir, archive), []byte("other"), 0o644)
			releasetest.Sum(t, dir)
			return err
		}},
		{"missing file", archive + ": no such file", func(dir string) error { return os.Remove(filepath.Join(dir, archive)) }},
		{"added file", "evil.deb: it is not of the release", func(dir string) error { return os.WriteFile(filepath.Join(dir, "evil.deb"), nil, 0o644) }},
		{"link", archive + ": it is no regular file", func(dir string) error {
			path := filepath.Join(dir, archive)
			if err := os.Rename(path, dir+".away"); err != nil {
				return err
			}
			return os.Symlink(dir+".away", path)
		}},
		{"no checksums", "SHA256SUMS: no such file", func(dir string) error { return os.Remove(filepath.Join(dir, sumsName)) }},
		{"file elsewhere", "want a digest", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, sumsName), []byte(strings.Repeat("0", 64)+"  ../../etc/passwd\n"), 0o644)
		}},
		{"list without a checksum", "release.json: SHA256SUMS does not list it", func(dir string) error {
			text, err := os.ReadFile(filepath.Join(dir, sumsName))
			check(t, err)
			lines := slices.DeleteFunc(strings.SplitAfter(string(text), "\n"), func(l string) bool { return strings.Contains(l, release.ListName) })
			return os.WriteFile(filepath.Join(dir, sumsName), []byte(strings.Join(lines, "")), 0o644)
		}},
		{"no list", "make a release first", func(dir string) error { return os.Remove(filepath.Join(dir, release.ListName)) }},
		{"blob", "it has the digest", func(dir string) error { return os.WriteFile(blob(dir), []byte("other"), 0o644) }},
		{"missing blob", "is not complete", func(dir string) error { return os.Remove(blob(dir)) }},
		{"image", "oci/bytecode: it has the digest", func(dir string) error {
			if err := os.RemoveAll(filepath.Join(dir, "oci/bytecode")); err != nil {
				return err
			}
			return os.Rename(filepath.Join(dir, "oci/operator"), filepath.Join(dir, "oci/bytecode"))
		}},
		{"image elsewhere", "/etc: it is outside", func(dir string) error {
			releasetest.Edit(t, dir, func(l *release.Release) { l.Images[0].Layout = "/etc" })
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, k := start(t, true), key(t)
			dir := releasetest.Make(t, r.host+"/team/blixt")
			check(t, c.change(dir))
			_, err := run(t, r, dir, k)
			wantError(t, err, c.text)
			if r.requests.Load() > 0 {
				t.Error("the registry was asked")
			}
		})
	}
}

// replacing does something before the first image is signed, such as to replace the release as
// make release does.
type replacing struct {
	Key
	replace func()
}

func (r *replacing) Sign(ctx context.Context, image *bytecode.Stored, o bytecode.Options) error {
	if r.replace != nil {
		r.replace()
		r.replace = nil
	}
	return r.Key.Sign(ctx, image, o)
}

// Else what another build has made is signed as what this one has compared.
func TestReleaseIsReplacedMeanwhile(t *testing.T) {
	for name, text := range map[string]string{
		"charts-blixt.spdx.json":         "charts-blixt.spdx.json: SHA256SUMS has another digest of it: publish again",
		"blixt_1.2.3_linux_amd64.tar.gz": "is another release than when this began: publish again",
	} {
		r := start(t, true)
		dir := releasetest.Make(t, r.host+"/team/blixt")
		signer := &replacing{key(t), func() {
			check(t, os.WriteFile(filepath.Join(dir, name), []byte(`{"other":1}`), 0o644))
			releasetest.Sum(t, dir)
		}}
		err := Run(t.Context(), Options{Dist: dir, Signer: signer, Remote: r.options(), Log: io.Discard}, io.Discard)
		wantError(t, err, text)
		if _, err := os.Stat(filepath.Join(dir, signatureName)); err == nil {
			t.Errorf("%s: the checksums are signed", name)
		}
	}
}

func TestVersionIsPublishedMeanwhile(t *testing.T) {
	r, k := start(t, true), key(t)
	first := releasetest.Make(t, r.host+"/team/blixt")
	signer := &replacing{k, func() {
		_, err := run(t, r, first, k)
		check(t, err)
	}}
	err := Run(t.Context(), Options{Dist: releasetest.Make(t, r.host+"/team/blixt"), Signer: signer, Remote: r.options(), Log: io.Discard}, io.Discard)
	wantError(t, err, "/operator:v1.2.3 is published already", "release another version")
	wantPublished(t, r, first, k)
}

// Statements are attached as they were made.
func TestStatementsOfOthersAreRefused(t *testing.T) {
	for text, change := range map[string]func(*release.Attestation){
		"https://example.com/other was expected": func(a *release.Attestation) { a.PredicateType = "https://example.com/other" },
		"is outside of the release":              func(a *release.Attestation) { a.File = "../x" },
		"read statement":                         func(a *release.Attestation) { a.File = "operator.spdx.json" },
		"states nothing about":                   func(a *release.Attestation) { a.File = "bytecode.intoto.json" },
	} {
		t.Run(text, func(t *testing.T) {
			r, k := start(t, true), key(t)
			dir := releasetest.Make(t, r.host+"/team/blixt")
			releasetest.Edit(t, dir, func(l *release.Release) { change(&l.Images[0].Attestations[0]) })
			_, err := run(t, r, dir, k)
			wantError(t, err, text)
		})
	}
}

func TestIdentityOfTheWorkflow(t *testing.T) {
	env := map[string]string{"GITHUB_WORKFLOW_REF": "o/r/.github/workflows/release.yaml@refs/tags/v1.2.3", "GITHUB_SERVER_URL": "https://github.com"}
	k := Keyless{Program: "true"}
	check(t, k.Complete(func(name string) string { return env[name] }))
	if k.Identity != "https://github.com/o/r/.github/workflows/release.yaml@refs/tags/v1.2.3" || k.Issuer != githubIssuer {
		t.Errorf("%+v", k)
	}
	none := func(string) string { return "" }
	wantError(t, (&Keyless{Program: "true"}).Complete(none), "-identity and -issuer")
	wantError(t, (&Keyless{Program: "/nonexistent/cosign"}).Complete(none), "make cosign")
}
