// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/publish"
	"github.com/kubernetes-sigs/blixt/operator/release/releasetest"
)

// program returns the cosign that make cosign has built.
func program(t *testing.T) string {
	t.Helper()
	module, err := os.ReadFile("../../bytecode/cosign/go.mod")
	check(t, err)
	version := regexp.MustCompile(`sigstore/cosign/v3 (v\S+)`).FindSubmatch(module)
	cache, err := os.UserCacheDir()
	check(t, err)
	path := filepath.Join(cache, "blixt", "cosign-"+string(version[1]))
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: build it with make cosign", err)
	}
	return path
}

// cosign runs cosign, without the settings of whoever runs this.
func cosign(t *testing.T, args ...string) (string, error) {
	t.Helper()
	said, err := exec.CommandContext(t.Context(), program(t), args...).CombinedOutput()
	return string(said), err
}

func mustCosign(t *testing.T, args ...string) {
	t.Helper()
	if said, err := cosign(t, args...); err != nil {
		t.Errorf("cosign %s: %v: %s", strings.Join(args, " "), err, said)
	}
}

// wantRefused wants cosign to verify nothing, for a reason.
func wantRefused(t *testing.T, text string, args ...string) {
	t.Helper()
	said, err := cosign(t, args...)
	if err == nil || !strings.Contains(said, text) {
		t.Errorf("cosign %s: %v: %s, want it to fail with %q", strings.Join(args, " "), err, said, text)
	}
}

// published is a release in a registry.
type published struct {
	dir, ca string
	options bytecode.Options
	list    *release.Release
}

func newRelease(t *testing.T, referrers bool) *published {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers)))
	t.Cleanup(server.Close)
	p := &published{ca: file(t, "ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))}
	p.options.CAFile = p.ca
	p.dir = releasetest.Make(t, strings.TrimPrefix(server.URL, "https://")+"/blixt")
	var err error
	p.list, err = release.Read(p.dir)
	check(t, err)
	return p
}

func (p *published) publish(t *testing.T, by publish.Signer) error {
	t.Helper()
	return publish.Run(t.Context(), publish.Options{Dist: p.dir, Signer: by, Remote: p.options, Log: io.Discard}, io.Discard)
}

// digests returns the names of all that is signed, of indexes and of machines.
func (p *published) digests() (all []string) {
	for _, image := range p.list.Images {
		all = append(all, image.Repository+"@"+image.Digest)
		for _, m := range image.Manifests {
			all = append(all, image.Repository+"@"+m.Digest)
		}
	}
	return all
}

func (p *published) blob(options ...string) []string {
	sums := filepath.Join(p.dir, "SHA256SUMS")
	return append([]string{"verify-blob", "--bundle=" + sums + ".sigstore.json", sums}, options...)
}

// wantVerified wants cosign to verify everything with options.
func (p *published) wantVerified(t *testing.T, options ...string) {
	t.Helper()
	remote := append([]string{"--registry-cacert=" + p.ca}, options...)
	for _, name := range p.digests() {
		// It lists attestations as well, and would be content with one.
		said, err := cosign(t, append([]string{"verify", name}, remote...)...)
		_, digest, _ := strings.Cut(name, "@")
		if want := `"docker-manifest-digest":"` + digest + `"},"type":"` + bytecode.PredicateSignature + `"`; err != nil || !strings.Contains(said, want) {
			t.Errorf("cosign verify %s: %v: %s, want a signature", name, err, said)
		}
		for _, kind := range []string{"slsaprovenance1", "spdxjson"} {
			mustCosign(t, append([]string{"verify-attestation", "--type=" + kind, name}, remote...)...)
		}
	}
	mustCosign(t, p.blob(options...)...)
}

func newKey(t *testing.T) (key publish.Key, public string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cosign.key")
	made, err := bytecode.GenerateKey(path)
	check(t, err)
	read, err := bytecode.ReadPrivateKey(path, nil)
	check(t, err)
	return publish.Key{PrivateKey: read}, file(t, "cosign.pub", []byte(made.PEM))
}

func TestCosignVerifiesWhatAKeyPublished(t *testing.T) {
	for name, referrers := range map[string]bool{"referrers": true, "tags instead of referrers": false} {
		t.Run(name, func(t *testing.T) {
			p := newRelease(t, referrers)
			key, public := newKey(t)
			_, other := newKey(t)
			check(t, p.publish(t, key))
			p.wantVerified(t, strings.Fields(strings.Replace(key.Cosign(), "cosign.pub", public, 1))...)
			image := p.digests()[0]
			wantRefused(t, "no matching", "verify", "--insecure-ignore-tlog", "--key="+other, "--registry-cacert="+p.ca, image)
			wantRefused(t, "", "verify-attestation", "--type=spdxjson", "--insecure-ignore-tlog", "--key="+other, "--registry-cacert="+p.ca, image)
			wantRefused(t, "none of the", "verify-attestation", "--type=cyclonedx", "--insecure-ignore-tlog", "--key="+public, "--registry-cacert="+p.ca, image)
			wantRefused(t, "", p.blob("--insecure-ignore-tlog", "--key="+other)...)
			// That of cosign 2.
			mustCosign(t, "verify", "--new-bundle-format=false", "--insecure-ignore-tlog", "--key="+public, "--registry-cacert="+p.ca, image)
		})
	}
}

// What cosign itself attests, Blixt verifies with the key and shows.
func TestBlixtVerifiesWhatCosignAttests(t *testing.T) {
	p := newRelease(t, false)
	key, _ := newKey(t)
	check(t, p.publish(t, key))
	dir := t.TempDir()
	generate := exec.CommandContext(t.Context(), program(t), "generate-key-pair", "--output-key-prefix="+dir+"/cosign")
	generate.Env = append(os.Environ(), "COSIGN_PASSWORD=")
	if said, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	t.Setenv("COSIGN_PASSWORD", "")
	image := p.digests()[1]
	s := start(t, 0, false)
	mustCosign(t, "attest", "--yes", "--key="+dir+"/cosign.key", "--signing-config="+s.config, "--type=spdxjson",
		"--predicate="+filepath.Join(p.dir, "operator.spdx.json"), "--registry-cacert="+p.ca, image)
	public, err := bytecode.ReadPublicKey(dir + "/cosign.pub")
	check(t, err)
	stored, err := bytecode.Open(t.Context(), image, p.options)
	check(t, err)
	verified, err := stored.VerifyAttestation(bytecode.PredicateSPDX, []*bytecode.PublicKey{public})
	check(t, err)
	var document struct{ SPDXVersion string }
	if err := json.Unmarshal(verified[0].Predicate, &document); err != nil || len(verified) != 1 || document.SPDXVersion != "SPDX-2.3" {
		t.Errorf("verified %+v, %s", verified, verified[0].Predicate)
	}
	if _, err := stored.Verify([]*bytecode.PublicKey{public}); err == nil {
		t.Error("the attestation counts as a signature")
	}
}
