// SPDX-License-Identifier: Apache-2.0

package nginx

import (
	"bytes"
	"fmt"
	"strings"
)

// word is a token of a configuration, such as listen or "a b".
type word struct {
	text string // without quotes and escapes
	line int
	// special is ; { or }, of which text is empty.
	special byte
}

// lexer divides a file into words, as nginx does: a quote counts where a word begins, # begins
// a comment there, and a brace after a dollar is part of a variable.
type lexer struct {
	text []byte
	at   int
	line int
}

// next returns the next word; false: there is none. The error says what is wrong at its line.
func (l *lexer) next() (word, bool, error) {
	l.space()
	if l.at == len(l.text) {
		return word{line: l.line}, false, nil
	}
	switch c := l.text[l.at]; c {
	case ';', '{', '}':
		l.at++
		return word{line: l.line, special: c}, true, nil
	case '\'', '"':
		return l.quoted(c)
	}
	return l.plain(), true, nil
}

// space skips white space and comments.
func (l *lexer) space() {
	for l.at < len(l.text) {
		switch c := l.text[l.at]; {
		case isSpace(c):
			if c == '\n' {
				l.line++
			}
			l.at++
		case c == '#':
			if n := bytes.IndexByte(l.text[l.at:], '\n'); n >= 0 {
				l.at += n
			} else {
				l.at = len(l.text)
			}
		default:
			return
		}
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func (l *lexer) plain() word {
	w := word{line: l.line}
	var b strings.Builder
	for l.at < len(l.text) {
		c := l.text[l.at]
		if isSpace(c) || c == ';' || c == '{' {
			break
		}
		if c == '$' && l.at+1 < len(l.text) && l.text[l.at+1] == '{' {
			b.WriteString("${")
			l.at += 2
			continue
		}
		l.char(&b)
	}
	w.text = b.String()
	return w
}

// char takes a character, or two of which the first is a backslash.
func (l *lexer) char(b *strings.Builder) {
	c := l.text[l.at]
	l.at++
	if c != '\\' || l.at == len(l.text) {
		if c == '\n' {
			l.line++
		}
		b.WriteByte(c)
		return
	}
	c = l.text[l.at]
	l.at++
	switch c {
	case '"', '\'', '\\':
		b.WriteByte(c)
	case 't':
		b.WriteByte('\t')
	case 'r':
		b.WriteByte('\r')
	case 'n':
		b.WriteByte('\n')
	default:
		if c == '\n' {
			l.line++
		}
		b.WriteByte('\\')
		b.WriteByte(c)
	}
}

func (l *lexer) quoted(quote byte) (word, bool, error) {
	w := word{line: l.line}
	l.at++
	var b strings.Builder
	for l.at < len(l.text) && l.text[l.at] != quote {
		l.char(&b)
	}
	if l.at == len(l.text) {
		return w, false, fmt.Errorf("the %c that begins at line %d has no other one", quote, w.line)
	}
	l.at++
	w.text = b.String()
	if l.at < len(l.text) && !isSpace(l.text[l.at]) && !strings.ContainsRune(";{)", rune(l.text[l.at])) {
		return w, false, fmt.Errorf("a blank or ; is missing after the closing %c", quote)
	}
	return w, true, nil
}

// skipLua skips a block of Lua, behind its {, with the } of its end: braces in strings and
// comments do not count. It reports whether there is an end.
func (l *lexer) skipLua() bool {
	depth := 1
	for l.at < len(l.text) {
		rest := l.text[l.at:]
		end := ""
		switch c := rest[0]; {
		case bytes.HasPrefix(rest, []byte("--[[")), bytes.HasPrefix(rest, []byte("[[")):
			end = "]]"
		case bytes.HasPrefix(rest, []byte("--")):
			end = "\n"
		case c == '"', c == '\'':
			l.skipString(c)
			continue
		case c == '{':
			depth++
		case c == '}':
			depth--
		case c == '\n':
			l.line++
		}
		l.at++
		if depth == 0 {
			return true
		}
		if end == "" {
			continue
		}
		n := bytes.Index(l.text[l.at:], []byte(end))
		if n < 0 {
			return false
		}
		l.line += bytes.Count(l.text[l.at:l.at+n+len(end)], []byte("\n"))
		l.at += n + len(end)
	}
	return false
}

// skipString skips a string of Lua, which ends at its quote, or with its line.
func (l *lexer) skipString(quote byte) {
	for l.at++; l.at < len(l.text) && l.text[l.at] != '\n'; l.at++ {
		if l.text[l.at] == quote {
			l.at++
			return
		}
		if l.text[l.at] == '\\' && l.at+1 < len(l.text) {
			if l.text[l.at+1] == '\n' {
				l.line++
			}
			l.at++
		}
	}
}
