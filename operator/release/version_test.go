// SPDX-License-Identifier: Apache-2.0

package release_test

import (
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/release"
)

func TestVersions(t *testing.T) {
	for version, problem := range map[string]string{
		"v1.2.3": "", "v0.0.1": "", "v1.2.3-rc.1": "", "v1.2.3-0.alpha-x": "",
		"":                                  "which version?",
		"1.2.3":                             "want v1.2.3",
		"v1.2.3+build.5":                    "want v1.2.3",
		"v1.2.3-rc.1+build.5":               "want v1.2.3-rc.1",
		"v1.2":                              "want one of Semantic Versioning",
		"v01.2.3":                           "want one of Semantic Versioning",
		"v1.2.3-rc.01":                      "want one of Semantic Versioning",
		"v1.2.3-":                           "want one of Semantic Versioning",
		"v1.2.3\n":                          "want one of Semantic Versioning",
		"v1.2.3 --output=x":                 "want one of Semantic Versioning",
		"latest":                            "want one of Semantic Versioning",
		"../v1.2.3":                         "want one of Semantic Versioning",
		"v2.0.0":                            "path ends in /v2",
		"v1.2.3-" + strings.Repeat("x", 40): "want at most 40",
	} {
		switch err := release.CheckVersion(version); {
		case problem == "" && err != nil:
			t.Errorf("%q: %v", version, err)
		case problem != "" && (err == nil || !strings.Contains(err.Error(), problem)):
			t.Errorf("%q: got %v, want an error with %q", version, err, problem)
		}
	}
}
