// SPDX-License-Identifier: Apache-2.0

package sysdump

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	yamldecoder "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// mostFiles is how many files of a load balancer are read, and largestFile how long one
// may be.
const (
	mostFiles   = 200
	largestFile = 1 << 20
)

// fileKinds are those of files that Blixt reads: others may be anybody's, and secret.
var fileKinds = []string{"GatewayClass", "Gateway", "ListenerSet", "TCPRoute", "UDPRoute", "Service", "EndpointSlice", "ReferenceGrant", "Namespace", "BlixtConfig", "BlixtGatewayConfig", "List"}

// Files returns the objects in files that Blixt reads, and learns their addresses. Of
// what it cannot read, or should not, it says only that it is there.
func (s *Scrubber) Files(paths []string) ([]byte, error) {
	var out bytes.Buffer
	var errs []error
	n := 0
	for _, path := range paths {
		if path == "-" {
			continue
		}
		files := []string{path}
		if entries, err := os.ReadDir(path); err == nil {
			files = nil
			for _, e := range entries {
				if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) && !strings.HasPrefix(e.Name(), ".") {
					files = append(files, filepath.Join(path, e.Name()))
				}
			}
		}
		for _, file := range files {
			if n++; n > mostFiles {
				return out.Bytes(), errors.Join(append(errs, fmt.Errorf("there are more than %d files", mostFiles))...)
			}
			if err := s.file(&out, file); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return out.Bytes(), errors.Join(errs...)
}

func (s *Scrubber) file(out io.Writer, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > largestFile {
		return fmt.Errorf("%s: it is no regular file of at most %d bytes", file, largestFile)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "# %s, %d bytes, of %s\n", file, info.Size(), info.ModTime().UTC().Format("2006-01-02 15:04:05"))
	documents := yamldecoder.NewYAMLToJSONDecoder(bytes.NewReader(text))
	for {
		object := map[string]any{}
		err := documents.Decode(&object)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			fmt.Fprintf(out, "---\n# what cannot be parsed is left out\n")
			return fmt.Errorf("%s: a document cannot be parsed, and is left out", file)
		}
		if len(object) == 0 {
			continue
		}
		s.document(out, object)
	}
}

// document writes an object, or what a List has.
func (s *Scrubber) document(out io.Writer, object map[string]any) {
	name, _ := object["kind"].(string)
	if !slices.Contains(fileKinds, name) {
		fmt.Fprintf(out, "---\n# an object of a kind that Blixt does not read is left out\n")
		return
	}
	if items, is := object["items"].([]any); is {
		for _, item := range items {
			if o, is := item.(map[string]any); is {
				s.document(out, o)
			}
		}
		return
	}
	s.KnowAll(object)
	s.Object(object)
	if text, err := yaml.Marshal(object); err == nil { // it came from YAML
		fmt.Fprintf(out, "---\n%s", text)
	}
}
