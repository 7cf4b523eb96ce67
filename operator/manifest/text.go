// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"

	"go.yaml.in/yaml/v3"
	sigsjson "sigs.k8s.io/json"
)

// document is one YAML document or JSON value. The values are those that kubectl would
// send to an API server; the nodes tell on which lines they are.
type document struct {
	node  *yaml.Node
	value any
}

// utf8Text returns the text without its byte order mark, in UTF-8.
func utf8Text(text []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(text, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(text, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	}
	units := make([]uint16, len(text)/2)
	for i := range units {
		units[i] = order.Uint16(text[2*i:])
	}
	return []byte(string(utf16.Decode(units[1:])))
}

// readYAML returns the documents that are valid.
func readYAML(file string, text []byte) (documents []document, errs Errors) {
	for _, part := range split(text) {
		d, err := part.read(file)
		if err != nil {
			errs = append(errs, err...)
		} else if d.node != nil {
			documents = append(documents, d)
		}
	}
	return documents, errs
}

// part is the text of a document, and how many lines are before it.
type part struct {
	text  []byte
	above int
}

// split cuts text at the lines that begin a document, as kubectl does, so that a fault in
// one document hides no fault in the next.
func split(text []byte) (parts []part) {
	line, begin, beginLine := 0, 0, 0
	cut := func(end int) {
		if p := text[begin:end]; !blank(p) {
			parts = append(parts, part{p, beginLine})
		}
		begin, beginLine = end, line
	}
	for at := 0; at < len(text); line++ {
		end := at + 1 + bytes.IndexByte(text[at:], '\n')
		if end == at {
			end = len(text)
		}
		if marker := bytes.TrimPrefix(text[at:end], []byte("---")); len(marker) < end-at && (len(marker) == 0 || strings.ContainsRune(" \t\r\n", rune(marker[0]))) {
			cut(at)
		}
		at = end
	}
	cut(len(text))
	return parts
}

// blank reports whether nothing but comments, directives and the marker of a document is
// in a text.
func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(bytes.TrimPrefix(line, []byte("---")))
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

func (p part) read(file string) (document, Errors) {
	fail := func(err error) (document, Errors) {
		e := syntaxError(file, p.text, err)
		e.Line += p.above
		return document{}, Errors{e}
	}
	var node yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(p.text))
	if err := decoder.Decode(&node); errors.Is(err, io.EOF) || err == nil && len(node.Content) == 0 {
		return document{}, nil
	} else if err != nil {
		return fail(err)
	}
	if err := decoder.Decode(&yaml.Node{}); err != nil && !errors.Is(err, io.EOF) { // a fault behind the document's end
		return fail(err)
	}
	shift(&node, p.above)
	value, err := valueOf(p.text, node.Content[0])
	if err != nil {
		return fail(err)
	}
	return document{node.Content[0], value}, nil
}

// shift moves nodes down by so many lines.
func shift(node *yaml.Node, lines int) {
	node.Line += lines
	for _, n := range node.Content {
		shift(n, lines)
	}
}

// readJSON returns the values of a stream of JSON, by RFC 8259. Both are nil if the text
// does not begin as JSON does.
func readJSON(file string, text []byte) ([]document, Errors) {
	if start := bytes.TrimSpace(text); start[0] != '{' && start[0] != '[' {
		return nil, nil
	}
	var documents []document
	stream := json.NewDecoder(bytes.NewReader(text))
	for {
		var raw json.RawMessage
		err := stream.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			at := stream.InputOffset()
			if syntax, is := errors.AsType[*json.SyntaxError](err); is {
				at = syntax.Offset
			} else if errors.Is(err, io.ErrUnexpectedEOF) {
				at = int64(len(bytes.TrimRight(text, " \t\r\n")))
			}
			return nil, Errors{{File: file, Line: lineAtOffset(text, at), Reason: err.Error()}}
		}
		n := jsonNodes{json.NewDecoder(bytes.NewReader(raw)), raw, 0, lineAtOffset(text, stream.InputOffset()-int64(len(raw)))}
		var value any
		if err := sigsjson.UnmarshalCaseSensitivePreserveInts(raw, &value); err != nil {
			return nil, Errors{{File: file, Line: n.line, Reason: err.Error()}}
		}
		documents = append(documents, document{n.next(), value})
	}
}

func lineAtOffset(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(max(offset, 0), int64(len(text)))], []byte("\n"))
}

// jsonNodes makes nodes of JSON that is known to be valid.
type jsonNodes struct {
	decoder *json.Decoder
	text    []byte
	counted int64 // up to where line is counted
	line    int
}

func (j *jsonNodes) next() *yaml.Node {
	j.decoder.UseNumber()
	token, _ := j.decoder.Token()
	at := j.decoder.InputOffset()
	j.line += bytes.Count(j.text[j.counted:at], []byte("\n"))
	j.counted = at
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Line: j.line, Value: fmt.Sprint(token)}
	switch token {
	case nil:
		node.Tag = "!!null"
	case json.Delim('{'):
		node.Kind, node.Tag = yaml.MappingNode, "!!map"
	case json.Delim('['):
		node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
	}
	for node.Kind != yaml.ScalarNode && j.decoder.More() {
		node.Content = append(node.Content, j.next())
	}
	if node.Kind != yaml.ScalarNode {
		_, _ = j.decoder.Token() // the closing bracket
	}
	return node
}

// repeated returns an error for each key that a mapping below the node has twice.
func repeated(file, object string, node *yaml.Node) (errs Errors) {
	lines := map[string]int{}
	for i, n := range node.Content {
		if node.Kind == yaml.MappingNode && i%2 == 0 {
			if first, is := lines[n.Value]; is && n.Kind == yaml.ScalarNode {
				errs = append(errs, &Error{File: file, Line: n.Line, Object: object, Reason: fmt.Sprintf("mapping key %q already defined at line %d", n.Value, first)})
			} else {
				lines[n.Value] = n.Line
			}
		}
		errs = append(errs, repeated(file, object, n)...)
	}
	return errs
}
