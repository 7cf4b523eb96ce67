// SPDX-License-Identifier: Apache-2.0

package release

import (
	"fmt"
	"regexp"
	"strings"
)

// versions are those of Semantic Versioning (semver.org), with the letter that Go's tags
// have, but without build metadata.
var versions = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?$`)

// maxVersion leaves room in labels of Kubernetes, which end after 63 characters.
const maxVersion = 40

// CheckVersion returns an error for a version that cannot be a tag of a release.
func CheckVersion(version string) error {
	if version == "" {
		return fmt.Errorf("which version? Name its tag, such as VERSION=v1.2.3 or VERSION=v1.2.3-rc.1")
	}
	switch match := versions.FindStringSubmatch(version); {
	case versions.MatchString("v" + version):
		return fmt.Errorf("version %s: tags begin with a v: want v%s", version, version)
	case strings.Contains(version, "+"):
		before, _, _ := strings.Cut(version, "+")
		return fmt.Errorf("version %s: neither Go nor a registry has versions with build metadata: want %s", version, before)
	case match == nil:
		return fmt.Errorf("version %q: want one of Semantic Versioning, such as v1.2.3 or v1.2.3-rc.1", version)
	case match[1] != "0" && match[1] != "1":
		return fmt.Errorf("version %s: Go takes version %s only of a module whose path ends in /v%s: change go.mod first", version, match[1], match[1])
	case len(version) > maxVersion:
		return fmt.Errorf("version %s: has %d characters, want at most %d", version, len(version), maxVersion)
	}
	return nil
}
