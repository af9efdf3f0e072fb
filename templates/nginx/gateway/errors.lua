--- Answers that are errors, each shaped as OpenAI's.

local cjson = require "cjson.safe"

local RETRY_AFTER = 5 -- seconds
local LONGEST = 100 -- bytes of somebody's words that we repeat

local M = { RETRY_AFTER = RETRY_AFTER }

local KINDS = { [401] = "authentication_error", [403] = "permission_error", [429] = "rate_limit_error" }

local function kind(status)
    return KINDS[status] or (status < 500 and "invalid_request_error" or "server_error")
end

--- The body of an error.
function M.text(status, code, message)
    return cjson.encode({ error = { message = message, type = kind(status), param = cjson.null, code = code } })
end

--- What a stream that broke ends with: OpenAI's and Anthropic's clients both take it for an error.
function M.event(status, code, message)
    local body = { message = message, type = kind(status), param = cjson.null, code = code }
    return "\n\nevent: error\ndata: " .. cjson.encode({ type = "error", error = body }) .. "\n\n"
end

--- Somebody's words, short, and nothing in them that JSON cannot hold.
function M.shown(words)
    return (words:sub(1, LONGEST):gsub("[^%w%p ]", "?"))
end

--- Sends an answer that is known as a whole.
function M.answer(status, text, content_type)
    ngx.status = status
    ngx.header.content_type = content_type or "application/json"
    ngx.header.content_length = #text
    ngx.print(text)
    return ngx.exit(ngx.HTTP_OK)
end

function M.refuse(status, code, message, retry_after)
    if retry_after then
        ngx.header.retry_after = retry_after
    end
    return M.answer(status, M.text(status, code, message))
end

return M
