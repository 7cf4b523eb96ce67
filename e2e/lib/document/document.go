// SPDX-License-Identifier: Apache-2.0

// Package document reads the blocks of code of Markdown documents, and what the comment
// before a block says of how its commands are tested.
package document

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
)

// Languages of blocks that have commands.
const (
	Shell   = "sh"      // commands alone
	Console = "console" // each behind "$ " or "# ", with what it prints
)

// Block is a block of code of a document.
type Block struct {
	File     string // as it was given to Read
	Line     int    // of its first line of text
	Section  string // the heading above it
	Language string // "" if none is named, or the block is not fenced
	Fenced   bool
	Text     string
	// Comment is the HTML comment on the line before the fence, without its marks.
	Comment string
}

// String returns where the block is.
func (b Block) String() string { return fmt.Sprintf("%s:%d", b.File, b.Line) }

// HasCommands reports whether readers are to type what the block says.
func (b Block) HasCommands() bool { return b.Language == Shell || b.Language == Console }

// Read returns the blocks of a document, in lists and quotes as well.
func Read(file string) ([]Block, error) {
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, source), nil
}

// Parse returns the blocks of a text by the rules of CommonMark.
func Parse(file string, source []byte) (all []Block) {
	source = bytes.ReplaceAll(source, []byte("\r\n"), []byte("\n"))
	section := ""
	walk := func(n ast.Node, enter bool) (ast.WalkStatus, error) {
		if !enter {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			section = string(n.Lines().Value(source))
		case *ast.CodeBlock:
			all = append(all, Block{File: file, Section: section, Line: line(source, n), Text: string(n.Lines().Value(source))})
		case *ast.FencedCodeBlock:
			b := Block{File: file, Section: section, Fenced: true, Line: line(source, n), Text: string(n.Lines().Value(source))}
			if n.Info != nil {
				b.Language = string(n.Language(source))
			}
			if comment, is := n.PreviousSibling().(*ast.HTMLBlock); is && !n.HasBlankPreviousLines() {
				b.Comment = commentText(comment, source)
			}
			all = append(all, b)
		}
		return ast.WalkContinue, nil
	}
	_ = ast.Walk(goldmark.DefaultParser().Parse(text.NewReader(source)), walk) // walk returns no error
	return all
}

// line returns the line on which the text of a block begins, or 0 if it has none.
func line(source []byte, n ast.Node) int {
	if n.Lines().Len() == 0 {
		return 0
	}
	return 1 + bytes.Count(source[:n.Lines().At(0).Start], []byte("\n"))
}

// commentText returns the text of an HTML comment of one line, or "" for other HTML.
func commentText(n *ast.HTMLBlock, source []byte) string {
	inner, is := strings.CutPrefix(strings.TrimSpace(string(n.Lines().Value(source))), "<!--")
	if inner, closed := strings.CutSuffix(inner, "-->"); is && closed {
		return strings.TrimSpace(inner)
	}
	return ""
}

// Command is what readers type at once.
type Command struct {
	Line int
	Text string
	// Prints is what it is shown to print. The commands of a block of sh show nothing.
	Prints string
}

// Commands returns what readers type: all of a block of sh, or what follows each prompt of
// a console. A line of a console that ends with a backslash, | or && goes on in the next.
func (b Block) Commands() (all []Command, err error) {
	if b.Language != Console {
		return []Command{{Line: b.Line, Text: b.Text}}, nil
	}
	if len(b.Text) < 2 || b.Text[:2] != "$ " && b.Text[:2] != "# " {
		return nil, fmt.Errorf("%s: a console begins with $ and a command, or # if it is root's", b)
	}
	prompt, more := b.Text[:2], false
	n := b.Line
	for line := range strings.Lines(b.Text) {
		text, is := strings.CutPrefix(line, prompt)
		switch last := len(all) - 1; {
		case more:
			all[last].Text += line
		case is:
			all = append(all, Command{Line: n, Text: text})
		default:
			all[last].Prints += line
		}
		if is || more {
			end := strings.TrimSpace(text)
			more = strings.HasSuffix(end, `\`) || strings.HasSuffix(end, "|") || strings.HasSuffix(end, "&&")
		}
		n++
	}
	return all, nil
}
