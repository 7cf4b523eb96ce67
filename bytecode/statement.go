// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Types of predicates.
const (
	// PredicateSignature only states that the subject is signed.
	PredicateSignature = "https://sigstore.dev/cosign/sign/v1"
	// PredicateSPDX is a list of what the subject is made of (SPDX, JSON).
	PredicateSPDX = "https://spdx.dev/Document"
	// PredicateProvenance tells how the subject was built (SLSA, version 1).
	PredicateProvenance = "https://slsa.dev/provenance/v1"
)

// Versions of the form. What differs between them is what a predicate may be.
const (
	statementType = "https://in-toto.io/Statement/v1"
	olderType     = "https://in-toto.io/Statement/v0.1" // of cosign attest
)

// Statement is an in-toto statement: a predicate is true of each subject.
//
// https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
type Statement struct {
	// Type is the version of the statement's form.
	Type          string          `json:"_type"`
	Subject       []Subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Subject is a file or an image, by its digests.
type Subject struct {
	Name string `json:"name,omitempty"`
	// Digest is in hexadecimal digits, by algorithm.
	Digest map[string]string `json:"digest"`
}

// NewStatement states a predicate of subjects.
func NewStatement(predicateType string, predicate json.RawMessage, subjects ...Subject) *Statement {
	return &Statement{Type: statementType, Subject: subjects, PredicateType: predicateType, Predicate: predicate}
}

// ParseStatement parses a statement, and returns an error unless it has all that one needs.
func ParseStatement(text []byte) (*Statement, error) {
	var s Statement
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read statement: %w", err)
	}
	if err := unambiguous(text); err != nil {
		return nil, fmt.Errorf("read statement: %w", err)
	}
	switch {
	case s.Type != statementType && s.Type != olderType:
		return nil, fmt.Errorf("read statement: _type is %q: want %s", s.Type, statementType)
	case s.PredicateType == "":
		return nil, errors.New("read statement: it has no predicateType")
	case len(s.Subject) == 0:
		return nil, errors.New("read statement: it has no subject")
	}
	return &s, nil
}

// unambiguous returns an error if others could read an object in another way: parsers
// differ in which of two equal keys counts, and in whether a key's case does.
func unambiguous(object []byte) error {
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil { // the brace
		return err
	}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		key := strings.ToLower(fmt.Sprint(token))
		if seen[key] {
			return fmt.Errorf("it has the key %q twice", key)
		}
		seen[key] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
	}
	return nil
}

// About reports whether a digest, as sha256:HEX, is one of the subjects'.
func (s *Statement) About(digest string) bool { return slices.Contains(s.digests(), digest) }

// digests returns the digests of all subjects, sorted for each.
func (s *Statement) digests() (all []string) {
	for _, subject := range s.Subject {
		first := len(all)
		for algorithm, hex := range subject.Digest {
			all = append(all, algorithm+":"+hex)
		}
		slices.Sort(all[first:])
	}
	return all
}

// newSignature states that an image is signed.
func newSignature(of v1.Hash) *Statement {
	return NewStatement(PredicateSignature, json.RawMessage("{}"), subjectOf(of))
}

// subjectOf returns an image as a subject.
func subjectOf(digest v1.Hash) Subject {
	return Subject{Digest: map[string]string{digest.Algorithm: digest.Hex}}
}
