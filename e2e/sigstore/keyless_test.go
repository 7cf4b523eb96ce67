// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

const lifetime = 10 * time.Minute

func TestCosignVerifiesWhatAWorkflowPublished(t *testing.T) {
	us, others := startIssuer(t), startIssuer(t)
	s := start(t, lifetime, true, us, others)
	p := newRelease(t, false)
	who := workflow("release.yaml")
	signer := s.signer(t, us, who)
	check(t, p.publish(t, signer))
	p.wantVerified(t, strings.Fields(signer.Cosign())...)

	image := p.digests()[0]
	stored, err := bytecode.Open(t.Context(), image, p.options)
	check(t, err)
	signatures, err := stored.Signatures(nil)
	check(t, err)
	if len(signatures) != 1 || signatures[0].Identity != who || signatures[0].Issuer != us.url {
		t.Errorf("signatures %+v, want one of %s by %s", signatures, who, us.url)
	}
	_, key := newKey(t)
	public, err := bytecode.ReadPublicKey(key)
	check(t, err)
	if _, err := stored.Verify([]*bytecode.PublicKey{public}); err == nil || !strings.Contains(err.Error(), "but by "+who) {
		t.Errorf("verified by a key: %v", err)
	}

	// Again, by another run of the same workflow: nothing is added.
	again := s.signer(t, us, who)
	check(t, p.publish(t, again))
	if signatures, err = stored.Signatures(nil); err != nil || len(signatures) != 1 {
		t.Errorf("after a second run %+v, %v", signatures, err)
	}

	elsewhere := start(t, lifetime, true, us)
	for name, change := range map[string]func(o string) string{
		"another workflow":    func(o string) string { return strings.Replace(o, "release.yaml", "pull.yaml", 1) },
		"another tag":         func(o string) string { return strings.Replace(o, "v1.2.3", "v1.2.4", 1) },
		"another issuer":      func(o string) string { return strings.Replace(o, us.url, others.url, 1) },
		"another CA":          func(o string) string { return strings.Replace(o, s.root, elsewhere.root, 1) },
		"without time stamps": func(o string) string { return strings.Replace(o, "--use-signed-timestamps", "", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			options := strings.Fields(change(signer.Cosign()))
			if name == "without time stamps" { // the certificate is still valid
				mustCosign(t, append([]string{"verify", "--registry-cacert=" + p.ca, image}, options...)...)
				return
			}
			wantRefused(t, "", append([]string{"verify", "--registry-cacert=" + p.ca, image}, options...)...)
			wantRefused(t, "", append([]string{"verify-attestation", "--type=spdxjson", "--registry-cacert=" + p.ca, image}, options...)...)
			wantRefused(t, "", p.blob(options...)...)
		})
	}
}

// The token is of another workflow than users are told of.
func TestNothingIsPublishedByAnotherIdentity(t *testing.T) {
	us := startIssuer(t)
	s := start(t, lifetime, true, us)
	p := newRelease(t, true)
	signer := s.signer(t, us, workflow("release.yaml"))
	signer.Token = us.token(t, workflow("pull.yaml"))
	if err := p.publish(t, signer); err == nil || !strings.Contains(err.Error(), "verify-blob-attestation") {
		t.Errorf("got %v, want cosign to verify nothing", err)
	}
	digest, err := bytecode.Tagged(t.Context(), p.list.Images[0].Repository+":"+p.list.Images[0].Tag, p.options)
	if check(t, err); digest != "" {
		t.Error("it has its tag")
	}
	stored, err := bytecode.Open(t.Context(), p.digests()[0], p.options)
	check(t, err)
	if bundles, err := stored.Bundles(); err != nil || len(bundles) > 0 {
		t.Errorf("attached are %d bundles, %v", len(bundles), err)
	}
}

// A certificate outlives its minutes only with a stamp of the time of the signature.
func TestExpiredCertificate(t *testing.T) {
	us := startIssuer(t)
	const short = 5 * time.Second
	verify := map[string][]string{}
	for name, stamps := range map[string]bool{"stamped": true, "not stamped": false} {
		s := start(t, short, stamps, us)
		signer := s.signer(t, us, workflow("release.yaml"))
		sums, signature := file(t, "sums", []byte(name)), file(t, "signature", nil)
		mustCosign(t, "sign-blob", "--yes", "--signing-config="+s.config, "--trusted-root="+s.root,
			"--identity-token="+signer.Token, "--bundle="+signature, sums)
		options := signer.Cosign()
		if !stamps {
			options = strings.Replace(options, "--use-signed-timestamps", "", 1)
		}
		verify[name] = append([]string{"verify-blob", "--bundle=" + signature, sums}, strings.Fields(options)...)
		mustCosign(t, verify[name]...)
	}
	time.Sleep(short)
	mustCosign(t, verify["stamped"]...)
	wantRefused(t, "certificate verification failed", verify["not stamped"]...)
}
