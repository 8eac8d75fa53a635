// Asks the API. The token lies in this tab's session alone, and is never part of an address.

const KEPT = "veilsight-token";

export class ApiError extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

export const token = () => sessionStorage.getItem(KEPT) ?? "";
export const keep = (text) => sessionStorage.setItem(KEPT, text);
export const forget = () => sessionStorage.removeItem(KEPT);

export const head = () => ({ Authorization: `Bearer ${token()}` });

// Returns what the server says. Throws ApiError: status 0 where there was no answer in time.
export async function ask(path, { method = "GET", body = null, seconds = 10 } = {}) {
  const how = { method, headers: head(), signal: AbortSignal.timeout(seconds * 1000), cache: "no-store" };
  if (body !== null) {
    how.headers["Content-Type"] = "application/json";
    how.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, how);
  } catch (error) {
    throw new ApiError(0, String(error));
  }
  if (!answer.ok) throw new ApiError(answer.status, await reason(answer));
  try {
    return await answer.json();
  } catch (error) {
    throw new ApiError(0, String(error));
  }
}

async function reason(answer) {
  try {
    const { detail } = await answer.json();
    return typeof detail === "string" ? detail : answer.statusText;
  } catch {
    return answer.statusText;
  }
}

// A query of names and values, without those that say nothing.
export function query(values) {
  const set = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return new URLSearchParams(set).toString();
}
