// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

func TestAttestationsAreShownAndVerified(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	private, public := keyFiles(t)
	_, other := keyFiles(t)
	image := strings.TrimSpace(mustBlixt(t, "bytecode", "push", strings.TrimPrefix(server.URL, "https://")+"/blixt/bytecode:v1", "--ca-file", ca))
	attest(t, image, private, bytecode.Options{CAFile: ca})

	table := mustBlixt(t, "bytecode", "inspect", image, "--key", public, "--ca-file", ca)
	for _, text := range []string{"Not signed.", "ATTESTATION", bytecode.PredicateSPDX, "this image and 1 more", public} {
		if !strings.Contains(table, text) {
			t.Errorf("no %q in\n%s", text, table)
		}
	}
	var shown inspected
	if err := json.Unmarshal([]byte(mustBlixt(t, "bytecode", "inspect", image, "-o", "json", "--ca-file", ca)), &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown.Signatures) != 0 || len(shown.Attestations) != 1 || shown.Attestations[0].VerifiedBy != "" || len(shown.Attestations[0].Subjects) != 2 {
		t.Errorf("%+v, want one attestation that nobody has verified", shown)
	}
	if printed := mustBlixt(t, "bytecode", "verify", image, "--key", public, "--type", "spdxjson", "--predicate", "--ca-file", ca); printed != `{"spdxVersion":"SPDX-2.3"}`+"\n" {
		t.Errorf("printed %q, want the document", printed)
	}
	if printed := mustBlixt(t, "bytecode", "verify", image, "--key", public, "--type", "spdxjson", "--ca-file", ca); !strings.HasPrefix(printed, "verified "+bytecode.PredicateSPDX+" of "+image) {
		t.Errorf("printed %q", printed)
	}
	for text, args := range map[string][]string{
		"is not signed":      {"--key", public},
		"is not by " + other: {"--key", other, "--type", "spdxjson"},
		"has no attestation https://slsa.dev/provenance/v1": {"--key", public, "--type", "slsaprovenance1"},
		`--type "spdx"`:   {"--key", public, "--type", "spdx"},
		"Name its --type": {"--key", public, "--predicate"},
	} {
		if _, err := blixt(t, append([]string{"bytecode", "verify", image, "--ca-file", ca}, args...)...); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want an error with %q", args, err, text)
		}
	}
}

// attest attaches what is in an image, and in another.
func attest(t *testing.T, image, private string, o bytecode.Options) {
	t.Helper()
	key, err := bytecode.ReadPrivateKey(private, nil)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := bytecode.Open(t.Context(), image, o)
	if err != nil {
		t.Fatal(err)
	}
	_, hex, _ := strings.Cut(stored.Digest(), ":")
	text, err := json.Marshal(bytecode.NewStatement(bytecode.PredicateSPDX, []byte(`{"spdxVersion":"SPDX-2.3"}`),
		bytecode.Subject{Digest: map[string]string{"sha256": strings.Repeat("ab", 32)}}, bytecode.Subject{Digest: map[string]string{"sha256": hex}}))
	if err != nil {
		t.Fatal(err)
	}
	if err := stored.Attest(t.Context(), text, key, o); err != nil {
		t.Fatal(err)
	}
}
