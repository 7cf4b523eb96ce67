// SPDX-License-Identifier: Apache-2.0

package wire

const (
	// MaxAnswer is the most data of a message that carries a part of a piece.
	MaxAnswer = 16 << 10
	// answerOverhead is what a message costs besides its data.
	answerOverhead = 128
)

// AnswerCost is how much of Question.window an Answer with so much data takes. A
// question with a window below MinWindow gets no answer.
func AnswerCost(data int) int { return data + answerOverhead }

// MinWindow is the smallest window of a question when it is asked.
const MinWindow = 4 << 10

// AnswerRoom is how much data an Answer may have where so much of the window is left;
// 0: none may be sent.
func AnswerRoom(window int) int { return min(max(window-answerOverhead, 0), MaxAnswer) }
